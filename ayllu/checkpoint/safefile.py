"""One .safetensors file: the header checked against the file's size before anything is mapped, and a streaming writer.

Layout: 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then the data.
https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ayllu.checkpoint.source import Entry, count
from ayllu.errors import CheckpointError

MAX_HEADER = 100_000_000                                 # bytes; the format's own limit
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
AGAIN = "the file is damaged or its download broke off; fetch it again"


def read_safetensors(path: Path) -> dict[str, Entry]:
    """The tensors of one file by their names in it; reading one maps it without a copy (private: writing is safe)."""
    header, start = _header(path)
    entries: dict[str, Entry] = {}
    ranges: list[tuple[int, int]] = []
    for name, info in header.items():
        if name == "__metadata__":
            continue
        shape, dtype, begin, end = _row(info, f"{path}: tensor {name!r}")
        if end - begin != count(shape) * dtype.itemsize:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {shape} needs {count(shape) * dtype.itemsize} "
                                  f"bytes, the header gives it {end - begin}: {AGAIN}")
        ranges.append((begin, end))
        entries[name] = Entry(shape, dtype, _reader(path, name), path, str(info["dtype"]), name)
    _check_ranges(path, ranges, path.stat().st_size - start)
    return entries


def write_safetensors(path: Path, tensors: Iterable[tuple[str, Callable[[], Tensor], tuple[int, ...]]],
                      dtype_of: Callable[[str], torch.dtype]) -> None:
    """Write (name, read, shape) one tensor at a time, so that no more than one is in memory; `dtype_of(name)` casts."""
    rows = list(tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, _, shape in rows:
        size = count(shape) * dtype_of(name).itemsize
        header[name] = {"dtype": NAMES[dtype_of(name)], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)                      # data starts at a multiple of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, read, _ in rows:
            tensor = read().detach().to("cpu", dtype_of(name)).contiguous()
            file.write(tensor.view(torch.uint8).numpy().data if tensor.dim() else tensor.numpy().tobytes())


def _header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > min(MAX_HEADER, size - 8):
            raise CheckpointError(f"{path}: the header says it is {length} bytes long, the file has {size} bytes: "
                                  f"{AGAIN}")
        data = file.read(length)
    try:
        header = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON ({error}): {AGAIN}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a table of tensors: {AGAIN}")
    return header, 8 + length


def _row(info: Any, where: str) -> tuple[tuple[int, ...], torch.dtype, int, int]:
    """(shape, dtype, begin, end) of one tensor's row in the header."""
    try:
        kind, shape, (begin, end) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{where}: its row in the header lacks dtype, shape or data_offsets: {AGAIN}") from error
    if kind not in DTYPES:
        raise CheckpointError(f"{where} is stored as {kind!r}; Ayllu reads {', '.join(DTYPES)}: take the checkpoint "
                              "before it was quantised")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise CheckpointError(f"{where}: shape or offsets are not whole numbers: {AGAIN}")
    return shape, DTYPES[kind], begin, end


def _check_ranges(path: Path, ranges: list[tuple[int, int]], size: int) -> None:
    at = 0
    for begin, end in sorted(ranges):
        if begin != at or end < begin:
            raise CheckpointError(f"{path}: the tensors overlap or leave a gap at byte {min(at, begin)}: {AGAIN}")
        at = end
    if at != size:
        raise CheckpointError(f"{path}: the header describes {at} bytes of weights, the file holds {size}: {AGAIN}")


def _reader(path: Path, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: tensor {name!r}: {error}: {AGAIN}") from error
    return read
