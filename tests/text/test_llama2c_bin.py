"""llama2.c's tokenizer.bin."""

import kinds
import pytest
from kinds import LLAMA2C

from ayllu.errors import CheckpointError
from ayllu.text import llama2c_bin
from ayllu.text.spm import build
from ayllu.text.spm_proto import Piece, PieceType
from ayllu.text.tokenizer import Tokenizer


def small(**changes):
    pieces = [Piece("<unk>", 0, PieceType.UNKNOWN), Piece("<s>", 0, PieceType.CONTROL),
              Piece("</s>", 0, PieceType.CONTROL), *(Piece(f"<0x{b:02X}>", 0, PieceType.BYTE) for b in range(256)),
              Piece("ab", -1), Piece("▁ab", -2), Piece("▁", -3), Piece("a", -4), Piece("b", -5)]
    return build(pieces, **({"bos_id": 1, "eos_id": 2} | changes))


def test_the_real_file_there_and_back():
    kinds.needs_llama2()
    data = (LLAMA2C / "tokenizer.bin").read_bytes()
    codec = llama2c_bin.codec(data)
    assert llama2c_bin.write(codec) == data
    assert llama2c_bin.write(kinds.llama2().codec) == data
    assert Tokenizer(codec).fingerprint == kinds.llama2().fingerprint


def test_there_and_back():
    codec = small()
    again = llama2c_bin.codec(llama2c_bin.write(codec))
    assert again.pieces() == codec.pieces()
    assert Tokenizer(again).encode("ab  é", bos=True) == Tokenizer(codec).encode("ab  é", bos=True)


@pytest.mark.parametrize(("changes", "says"), [
    ({"bos_id": 2, "eos_id": 1}, "ids 0, 1, 2"), ({"dummy_prefix": False}, "one space"),
    ({"remove_extra_whitespaces": True}, "one space")])
def test_what_the_format_cannot_hold_is_refused(changes, says):
    with pytest.raises(CheckpointError, match=says):
        llama2c_bin.write(small(**changes))


def test_other_kinds_are_refused():
    with pytest.raises(CheckpointError, match="SentencePiece BPE here"):
        llama2c_bin.write(kinds.llama3().codec)
    with pytest.raises(CheckpointError, match=r"<mask>.*Convert to hf, meta or gguf"):
        llama2c_bin.write(kinds.sentencepiece().codec)


def test_damage_is_named():
    data = llama2c_bin.write(small())
    with pytest.raises(CheckpointError, match="piece 263"):
        llama2c_bin.codec(data[:-1])
    with pytest.raises(CheckpointError, match="piece 264"):
        llama2c_bin.codec(data + b"\0\0\0\0\xff\xff\xff\xff")
    with pytest.raises(CheckpointError, match="at least"):
        llama2c_bin.codec(data[:4])
