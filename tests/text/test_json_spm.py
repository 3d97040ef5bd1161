"""A tokenizer.json of SentencePiece's kind in formats that hold SentencePiece models."""

import json

import kinds
import pytest
from kinds import LLAMA2C, SAMPLE, TRICKY
from tokenizers import pre_tokenizers

from ayllu.errors import CheckpointError
from ayllu.log import logger
from ayllu.text import llama2c_bin
from ayllu.text.hf import HfCodec
from ayllu.text.json_spm import as_sentencepiece
from ayllu.text.report import hard_texts
from ayllu.text.tokenizer import Tokenizer


@pytest.mark.parametrize("name", ["trained", "llama2"])
def test_the_ids_are_the_same(name):
    if name == "llama2":
        kinds.needs_llama2()
    original = kinds.llama2() if name == "llama2" else kinds.sentencepiece()
    codec = HfCodec(json.dumps(original.codec.tokenizer_json()))
    made = as_sentencepiece(codec, "GGUF")
    assert [(p.text, p.type) for p in made.pieces()] == [(p.text, p.type) for p in original.codec.pieces()]
    again = Tokenizer.from_gguf(Tokenizer(codec).gguf_metadata())
    for text in [*hard_texts(SAMPLE.split("\n")), *TRICKY]:
        assert again.encode(text, bos=True) == original.encode(text, bos=True)


def test_llama2c_from_a_tokenizer_json():
    kinds.needs_llama2()
    codec = HfCodec(json.dumps(kinds.llama2().codec.tokenizer_json()))
    again = Tokenizer(llama2c_bin.codec(llama2c_bin.write(codec)))
    for line in (LLAMA2C / "tokenizer_vectors.jsonl").read_text().splitlines():
        assert again.encode(json.loads(line)["text"], bos=True) == json.loads(line)["ids"]


def metaspace(**how) -> HfCodec:
    table = kinds.sentencepiece().codec.tokenizer_json()
    table |= {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                                                    "split": False} | how}
    return HfCodec(json.dumps(table))


def test_a_leading_space_is_warned_of(caplog):
    assert pre_tokenizers.Metaspace(split=False).prepend_scheme == "always"
    logger.addHandler(caplog.handler)                    # directly: the command line switches propagation off
    try:
        as_sentencepiece(metaspace(), "GGUF")
    finally:
        logger.removeHandler(caplog.handler)
    assert "begin with a space" in caplog.text


def test_no_prefix_at_all():
    made = as_sentencepiece(metaspace(prepend_scheme="never"), "GGUF")
    assert not made.has_dummy_prefix
    assert made.encode("Once", continues=False) == metaspace(prepend_scheme="never").encode("Once", continues=False)


def test_another_cut_is_refused():
    table = kinds.sentencepiece().codec.tokenizer_json()
    table["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "o"}, "behavior": "Isolated", "invert": False}
    with pytest.raises(CheckpointError, match="differently"):
        as_sentencepiece(HfCodec(json.dumps(table)), "GGUF")
    with pytest.raises(CheckpointError, match="something else"):
        as_sentencepiece(kinds.llama3().codec, "GGUF")
