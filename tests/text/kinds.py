"""Small tokenizers of every kind, made here: what the tests of text and streaming run over."""

import base64
import json
from functools import lru_cache
from pathlib import Path

import pytest
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from ayllu.text import tiktoken_ranks
from ayllu.text.codec import Named
from ayllu.text.hf import HfCodec, byte_level_json
from ayllu.text.spm import SentencePieceCodec
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece
from ayllu.text.words import PATTERNS

LLAMA2C = Path(__file__).parents[2].parent / "shared" / "data" / "llama2c"

SAMPLE = """The quick brown fox jumps over the lazy dog, and then it does so again; 3.14159 is not 22/7.
Once upon a time there was a little girl who wanted to read every book in the house.  She read  slowly.
def encode(self, text):\n    return [self.ids[c] for c in text if c in self.ids]\n\n\n        # eight spaces
我喜欢阅读和编程。从前有一个小女孩，她想读完家里所有的书。今天天气很好，我们去公园散步吧！二〇二六年。
Ένα δύο τρία. Привет, мир! Как дела? 今日はとてもいい天気ですね。안녕하세요. शुभ प्रभात. שלום עולם
😀😃 👩‍👩‍👧 ünïcödé naïve café façade résumé — “quotes” … ½ ± → ∞ <s> </s> <unk> [INST] <|im_start|> <0x0A>
"""
TRICKY = ["", " ", "  ", "   a", "a ", "\n", "\n\n  \n", "\t\tx", "a  b   c", "Hello<s>world</s>", "<unk>", "<0x0A>",
          "<|eot_id|>", "<|im_start|>user\nhi<|im_end|>", "<pad><extra_id_3>", "👩‍👩‍👧 family", "\u0000", "e\u0301",
          "\ufeffbom", "\u200b\u200d", "𐍈𝄞", "\ufffd", "3.14159", "ｆｕｌｌ", "שלום", "[INST] x [/INST]",
          " " * 33 + "x"]


def needs_llama2() -> None:
    """Skip where the shared data is not there."""
    if not (LLAMA2C / "tokenizer.model").is_file():
        pytest.skip(f"{LLAMA2C} with the Llama 2 vocabulary is not on this machine")


@lru_cache
def model_file() -> bytes:
    """A small `tokenizer.model` as Ayllu trains it."""
    return train_sentencepiece([SAMPLE] * 3, vocab_size=900, coverage=0.98, threads=1)


@lru_cache
def sentencepiece() -> Tokenizer:
    """SentencePiece with byte fallback, a dummy prefix and Ayllu's reserved pieces."""
    return Tokenizer(SentencePieceCodec(model_file()))


@lru_cache
def sentencepiece_json() -> Tokenizer:
    """The same as a tokenizer.json."""
    return Tokenizer(HfCodec(json.dumps(SentencePieceCodec(model_file()).tokenizer_json())))


@lru_cache
def trained_bytes() -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges of a byte-level BPE with Llama 3's rule for words."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERNS["llama-bpe"]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.train_from_iterator([SAMPLE] * 3, trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], model["merges"]


def rank_file() -> bytes:
    """The same vocabulary as Llama 3 publishes its own."""
    from ayllu.text.hf import BYTE_OF_CHAR

    vocab, _ = trained_bytes()
    lines = [(rank, bytes(BYTE_OF_CHAR[c] for c in piece)) for piece, rank in vocab.items()]
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in sorted(lines))


@lru_cache
def llama3() -> Tokenizer:
    """Llama 3's shape: ranks, its pattern, its 256 special tokens."""
    return Tokenizer(tiktoken_ranks.codec(rank_file()))


def qwen_json() -> dict:
    """A byte-level tokenizer.json with special tokens and with markers that it calls ordinary."""
    vocab, merges = trained_bytes()
    added = [(600, "<|endoftext|>", True), (601, "<|im_start|>", True), (602, "<|im_end|>", True),
             (603, "<tool_call>", False), (604, "</tool_call>", False), (605, "<think>", False),
             (606, "</think>", False)]
    return byte_level_json(dict(vocab), list(merges), added, PATTERNS["qwen2"], ignore_merges=False)


@lru_cache
def qwen() -> Tokenizer:
    """Qwen's shape: no BOS, ChatML markers."""
    return Tokenizer(HfCodec(json.dumps(qwen_json()), Named(eos_ids=(602, 600), pad_id=600)))


@lru_cache
def llama2() -> Tokenizer:
    """The real Llama 2 vocabulary."""
    return Tokenizer.load(LLAMA2C / "tokenizer.model")


KINDS = {"sentencepiece": sentencepiece, "sentencepiece_json": sentencepiece_json, "llama3": llama3, "qwen": qwen}
