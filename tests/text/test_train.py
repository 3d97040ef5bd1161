"""A trained tokenizer, and that its tokenizer.json gives the same ids: ours, tokenizers' and transformers'."""

import json
import random

import kinds
import pytest
from kinds import SAMPLE, TRICKY
from tokenizers import Tokenizer as Backend

from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.text import special
from ayllu.text.report import hard_texts
from ayllu.text.spm import SentencePieceCodec, build
from ayllu.text.spm_proto import Piece, PieceType
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

RANGES = [(0x20, 0x7E), (0, 0x2FF), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF), (0x2000, 0x2BFF), (0x3040, 0x30FF),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFD), (0x10000, 0x10FFFF), (0x1F300, 0x1FAFF)]


def fuzz(pieces: list[str], count: int) -> list[str]:
    """Random texts: pieces of the vocabulary side by side, runs, characters of many scripts, look-alikes."""
    draw = random.Random(7)
    words = SAMPLE.split(" ")
    makers = [
        lambda: "".join(draw.choice(pieces) for _ in range(draw.randint(1, 12))),
        lambda: "".join(chr(draw.randint(*draw.choice(RANGES))) for _ in range(draw.randint(0, 20))),
        lambda: "".join(draw.choice(["a", "aa", " ", "  ", "   ", "b", "\n", "=", "-", "0", "好"]) * draw.randint(1, 4)
                        for _ in range(draw.randint(1, 12))),
        lambda: " ".join(draw.choice(words) for _ in range(10)),
        lambda: "".join(draw.choice([*TRICKY, *special.RESERVED[:12], "<s>", "</s>"]) for _ in range(4))]
    return [draw.choice(makers)() for _ in range(count)]


@pytest.mark.parametrize("name", ["trained", "llama2"])
def test_tokenizer_json_is_equal(name):
    if name == "llama2":
        kinds.needs_llama2()
    codec = (kinds.llama2() if name == "llama2" else kinds.sentencepiece()).codec
    peer = Backend.from_str(json.dumps(codec.tokenizer_json()))
    peer.encode_special_tokens = True
    texts = [*hard_texts(SAMPLE.split("\n")), *TRICKY, *fuzz([p.text.replace("▁", " ") for p in codec.pieces()], 6000)]
    ours = codec.encode_batch(texts)
    theirs = [e.ids for e in peer.encode_batch(texts, add_special_tokens=False)]
    assert [t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    kinds.sentencepiece().save(path)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}))
    return path


@pytest.mark.parametrize("name", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_gives_the_same_ids(folder, name):
    import transformers

    peer = getattr(transformers, name).from_pretrained(folder)
    ours = kinds.sentencepiece()
    assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id, peer.unk_token_id) == (
        ours.bos_id, ours.eos_ids[0], ours.pad_id, ours.unk_id)
    for text in [*TRICKY, SAMPLE, *SAMPLE.split("\n"), *fuzz(SAMPLE.split(" "), 300)]:
        assert peer.encode(text) == ours.encode(text, bos=True, allow_special=True)
        assert peer.decode(ours.encode(text), skip_special_tokens=True) == ours.decode(ours.encode(text))


def test_llama_tokenizer_fast_of_transformers(folder):
    """transformers 5 ignores the file's normalizer in this class; everything but two things is equal.

    It puts no dummy prefix where a text begins with a space, and none after a special token.
    """
    from transformers import LlamaTokenizerFast

    peer = LlamaTokenizerFast.from_pretrained(folder)
    ours = kinds.sentencepiece()
    texts = [t for t in [*TRICKY, SAMPLE, *fuzz(SAMPLE.split(" "), 300)] if not t.startswith((" ", "▁"))]
    texts = [t for t in texts if not any(c.text in t for c in ours.codec.controls)]
    assert len(texts) > 150
    for text in texts:
        assert peer.encode(text) == ours.encode(text, bos=True)


def test_user_defined_pieces_that_look_like_markers_are_not_typed():
    pieces = [*(p for p in kinds.sentencepiece().codec.pieces()), Piece("<tool>", 0, PieceType.USER_DEFINED),
              Piece("    ", 0, PieceType.USER_DEFINED)]
    tokenizer = Tokenizer(build(pieces, bos_id=1, eos_id=2))
    assert 900 in tokenizer.codec.encode("a<tool>b", continues=False)    # SentencePiece matches it in any text
    ids = tokenizer.encode("a<tool>b")
    assert 900 not in ids
    assert tokenizer.decode(ids) == "a<tool>b"
    assert tokenizer.encode("<tool>", allow_special=True) == [900]
    assert tokenizer.decode([900], skip_special=True) == "<tool>"
    again = Tokenizer.from_gguf(tokenizer.gguf_metadata())
    assert again.fingerprint == tokenizer.fingerprint
    assert again.codec.pieces()[900:] == pieces[900:]


def test_what_a_trained_tokenizer_has():
    tokenizer = kinds.sentencepiece()
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.unk_id, tokenizer.pad_id) == (900, 1, 0, 3)
    assert tokenizer.eos_ids == (2, tokenizer.piece_to_id(special.TURN_END))
    for piece in special.RESERVED:
        assert tokenizer.piece_to_id(piece) in tokenizer.special_ids
        assert tokenizer.special_ids.isdisjoint(tokenizer.encode(f"x{piece}"))
    digits = tokenizer.encode("2222")
    assert [tokenizer.id_to_piece(i) for i in digits] == ["▁", *"2222"]
    rare = tokenizer.encode("𐍈")
    assert [tokenizer.id_to_piece(i) for i in rare][1:] == ["<0xF0>", "<0x90>", "<0x8D>", "<0x88>"]


def test_training_is_repeatable():
    again = train_sentencepiece([SAMPLE] * 3, vocab_size=900, coverage=0.98, threads=1)
    assert SentencePieceCodec(again).pieces() == SentencePieceCodec(kinds.model_file()).pieces()


def test_bad_wishes():
    with pytest.raises(ConfigError, match="leaves no room"):
        train_sentencepiece([SAMPLE], vocab_size=300)
    with pytest.raises(DataError, match=r"more characters .* larger vocab_size .* lower coverage"):
        train_sentencepiece(["".join(map(chr, range(0x4E00, 0x4E00 + 500)))], 500, coverage=1.0)
    with pytest.raises(DataError, match="smaller vocab_size"):
        train_sentencepiece(["abc"], vocab_size=5000)


def test_the_error_of_unreadable_texts_comes_through():
    def texts():
        yield SAMPLE
        raise DataError("line 7 is broken")

    with pytest.raises(DataError, match=r"^line 7 is broken$"):
        train_sentencepiece(texts(), vocab_size=900)


@pytest.mark.parametrize(("pieces", "how", "says"), [
    ([Piece("x", 0, PieceType.USER_DEFINED)], {}, "user-defined"),
    ([], {"remove_extra_whitespaces": True}, "extra spaces"), ([], {"prefix_each_segment": False}, "only the start")])
def test_models_without_an_equal_json(tmp_path, pieces, how, says):
    start = [Piece("<unk>", 0, PieceType.UNKNOWN), Piece("<s>", 0, PieceType.CONTROL),
             Piece("</s>", 0, PieceType.CONTROL), Piece("▁", -1), Piece("a", -2)]
    codec = build([*start, *pieces], bos_id=1, eos_id=2, **how)
    with pytest.raises(CheckpointError, match=says):
        codec.tokenizer_json()
    Tokenizer(codec).save(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    assert Tokenizer.load(tmp_path).encode("a a") == Tokenizer(codec).encode("a a")
