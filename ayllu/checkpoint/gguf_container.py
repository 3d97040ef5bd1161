"""The GGUF container, read with every length checked against the file's size before it is believed.

gguf's own reader trusts those lengths and takes 2 s for a vocabulary of 32,000; this walk takes 0.1 s. Files are
written by gguf's GGUFWriter, and the tests compare both readers. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.checkpoint.source import count
from ayllu.errors import CheckpointError

AGAIN = "the file is damaged or its download broke off; fetch it again"
STRING, ARRAY = 8, 9
SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
           10: "<u8", 11: "<i8", 12: "<f8"}
BLOCKS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2)}
"""By id: name, values and bytes of a block."""
_LARGEST_NAME = 2**16                                    # bytes of a key or a tensor's name
_LARGEST_FRACTION = 1 << 20                              # alignment


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies. `shape` is in torch's order, which is GGUF's reversed."""

    shape: tuple[int, ...]
    kind: str                                            # F32, F16, BF16 or Q8_0
    start: int                                           # bytes from the beginning of the file
    n_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """Metadata as plain Python values, tensors by name, and the mapped bytes."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    data: np.memmap


def read_gguf(path: Path) -> GgufFile:
    """Map the file and read its header; the pages are private, so that writing to a tensor never reaches the file."""
    if path.stat().st_size < 24:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, too few for a GGUF header: {AGAIN}")
    data = np.memmap(path, dtype=np.uint8, mode="c")
    cursor = _Cursor(path, data)
    if cursor.take(4) != b"GGUF":
        raise CheckpointError(f"{path} does not begin with the letters GGUF: it is another kind of file, or damaged")
    version = cursor.number("<u4")
    if version not in (2, 3):
        advice = "it is for big-endian machines" if version & 0xFFFF == 0 else "Ayllu reads versions 2 and 3"
        raise CheckpointError(f"{path} is GGUF version {version}; {advice}: convert it with a current llama.cpp")
    n_tensors, n_keys = cursor.count(24, "tensors"), cursor.count(13, "keys")
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.text(_LARGEST_NAME)
        if key in metadata:
            raise CheckpointError(f"{path}: the key {key!r} occurs twice: {AGAIN}")
        metadata[key] = cursor.value(cursor.number("<u4"), key)
    infos = [cursor.tensor_info() for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _LARGEST_FRACTION or alignment & (alignment - 1):
        raise CheckpointError(f"{path}: general.alignment is {alignment!r}, not a power of two: {AGAIN}")
    base = -(-cursor.at // alignment) * alignment
    return GgufFile(path, metadata, _place(path, infos, base, data.size), data)


def _place(path: Path, infos: list[tuple[str, tuple[int, ...], int, int]], base: int,
           size: int) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {name!r} occurs twice: {AGAIN}")
        if kind not in BLOCKS:
            raise CheckpointError(f"{path}: tensor {name!r} is stored as {_type_name(kind)}; Ayllu reads F32, F16, "
                                  "BF16 and Q8_0: take the Q8_0 or F16 file of this model")
        label, items, block_bytes = BLOCKS[kind]
        if not shape or shape[-1] % items:
            raise CheckpointError(f"{path}: tensor {name!r} has rows of {shape[-1:]} values, {label} needs a multiple "
                                  f"of {items}: {AGAIN}")
        n_bytes = count(shape) // items * block_bytes
        if base + offset + n_bytes > size:
            raise CheckpointError(f"{path}: tensor {name!r} reaches to byte {base + offset + n_bytes}, the file has "
                                  f"{size}: {AGAIN}")
        tensors[name] = GgufTensor(shape, label, base + offset, n_bytes)
    return tensors


def _type_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return f"the unknown type {kind}"


class _Cursor:
    """A position in the file that can't run past its end."""

    def __init__(self, path: Path, data: np.memmap) -> None:
        self.path, self.bytes, self.at = path, memoryview(data.data), 0

    def take(self, n: int) -> bytes:
        end = self.at + n
        if end > len(self.bytes):
            raise CheckpointError(f"{self.path}: the header reaches past the end of the file at byte {self.at}: "
                                  f"{AGAIN}")
        taken = bytes(self.bytes[self.at:end])
        self.at = end
        return taken

    def number(self, kind: str) -> Any:
        return np.frombuffer(self.take(np.dtype(kind).itemsize), dtype=kind)[0].item()

    def count(self, least: int, what: str) -> int:
        """A count of things that take at least `least` bytes each."""
        n = struct.unpack("<Q", self.take(8))[0]
        if n * least > len(self.bytes) - self.at:
            raise CheckpointError(f"{self.path}: the header promises {n} {what}, for which the file is too small: "
                                  f"{AGAIN}")
        return n

    def text(self, limit: int | None = None) -> str:
        n = self.count(1, "letters")
        if limit is not None and n > limit:
            raise CheckpointError(f"{self.path}: a name of {n} bytes at byte {self.at}: {AGAIN}")
        return self.take(n).decode("utf-8", errors="surrogateescape" if limit is None else "replace")

    def value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise CheckpointError(f"{self.path}: the key {key!r} has the unknown type {kind}: {AGAIN}")
        inner = self.number("<u4")
        if inner == STRING:
            return [self.text() for _ in range(self.count(8, f"strings in {key!r}"))]
        if inner not in SCALARS:
            raise CheckpointError(f"{self.path}: the key {key!r} is an array of the type {inner}, which no GGUF "
                                  f"needs: {AGAIN}")
        dtype = np.dtype(SCALARS[inner])
        n = self.count(dtype.itemsize, f"values in {key!r}")
        return np.frombuffer(self.take(n * dtype.itemsize), dtype=dtype).tolist()

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape in torch's order, type, offset)."""
        name = self.text(_LARGEST_NAME)
        n_dims = self.number("<u4")
        if n_dims > 4:
            raise CheckpointError(f"{self.path}: tensor {name!r} has {n_dims} dimensions, GGUF knows at most 4: "
                                  f"{AGAIN}")
        shape = tuple(reversed([self.number("<u8") for _ in range(n_dims)]))
        return name, shape, self.number("<u4"), self.number("<u8")
