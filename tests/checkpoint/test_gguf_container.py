"""The GGUF walk sees what gguf's reader sees, and believes no length that the file is too small for."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from checkpoint.models import shared_file, source

from ayllu.checkpoint.gguf_container import read_gguf
from ayllu.checkpoint.save import write_checkpoint
from ayllu.errors import CheckpointError

VOCABULARY = shared_file("llama2c/ggml-vocab-llama-spm.gguf")


def same_as_gguf(path: Path) -> None:
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields
    assert [(t.name, t.data_offset, t.n_bytes) for t in theirs.tensors] == \
        [(name, t.start, t.n_bytes) for name, t in ours.tensors.items()]
    for t in theirs.tensors:
        assert tuple(reversed(t.shape.tolist())) == ours.tensors[t.name].shape


@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_same_as_ggufs_reader(dtype: str, tmp_path: Path) -> None:
    same_as_gguf(write_checkpoint(source("llama 3.1"), tmp_path / "m.gguf", to="gguf", dtype=dtype))


@pytest.mark.skipif(not VOCABULARY.is_file(), reason="needs ../shared/data/llama2c/ggml-vocab-llama-spm.gguf")
def test_a_file_of_llama_cpp() -> None:
    same_as_gguf(VOCABULARY)
    assert len(read_gguf(VOCABULARY).metadata["tokenizer.ggml.tokens"]) == 32000


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


HEAD = b"GGUF" + struct.pack("<I", 3)
ONE_KEY = HEAD + struct.pack("<QQ", 0, 1)
ONE_TENSOR = HEAD + struct.pack("<QQ", 1, 0) + text("w")
HUGE = struct.pack("<Q", 2**62)


@pytest.mark.parametrize(("data", "says"), [
    (b"", "too few"), (b"GGML" + bytes(40), "letters GGUF"), (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
    (b"GGUF" + struct.pack("<I", 1) + bytes(40), "version 1"),
    (HEAD + HUGE + struct.pack("<Q", 0), "tensors"), (HEAD + struct.pack("<Q", 0) + HUGE, "keys"),
    (ONE_KEY + HUGE + bytes(30), "letters"), (ONE_KEY + text("k") + struct.pack("<I", 77) + bytes(30),
                                              "unknown type 77"),
    (ONE_KEY + text("k") + struct.pack("<II", 9, 8) + HUGE, "strings in 'k'"),
    (ONE_KEY + text("k") + struct.pack("<II", 9, 4) + HUGE, "values in 'k'"),
    (ONE_KEY + text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(30), "array of the type 9"),
    (ONE_KEY + text("general.alignment") + struct.pack("<II", 4, 3) + bytes(30), "power of two"),
    (ONE_TENSOR + struct.pack("<I", 2**31) + bytes(60), "dimensions"),
    (ONE_TENSOR + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0), "reaches to byte"),
    (ONE_TENSOR + struct.pack("<IQIQ", 1, 4, 0, 2**63), "reaches to byte"),
    (ONE_TENSOR + struct.pack("<IQIQ", 1, 33, 8, 0) + bytes(99), "multiple of 32"),
    (ONE_TENSOR + struct.pack("<IQIQ", 1, 4, 12, 0) + bytes(99), "Q4_K"),
    (ONE_TENSOR + struct.pack("<IQIQ", 1, 4, 999, 0) + bytes(99), "unknown type 999"),
])
def test_lengths_are_not_believed(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=says) as found:
        read_gguf(path)
    assert str(path) in str(found.value)


def test_twice_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    row = text("w") + struct.pack("<IQIQ", 1, 1, 0, 0)
    path.write_bytes(HEAD + struct.pack("<QQ", 2, 0) + row + row + bytes(64))
    with pytest.raises(CheckpointError, match="'w' occurs twice"):
        read_gguf(path)
    key = text("k") + struct.pack("<IB", 0, 1)
    path.write_bytes(HEAD + struct.pack("<QQ", 0, 2) + key + key)
    with pytest.raises(CheckpointError, match="'k' occurs twice"):
        read_gguf(path)


def test_pages_are_private(tmp_path: Path) -> None:
    path = write_checkpoint(source("plain"), tmp_path / "m.gguf", to="gguf")
    before = path.read_bytes()
    file = read_gguf(path)
    file.data[-100:] = np.uint8(7)
    assert path.read_bytes() == before
