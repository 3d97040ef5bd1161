"""Weights in torch's own format (.bin, .pth): read through `weights_only`, so that no code in the file ever runs."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ayllu.checkpoint.safefile import NAMES
from ayllu.checkpoint.source import Entry, count
from ayllu.errors import CheckpointError

AGAIN = "the file is damaged or its download broke off; fetch it again"


def read_pickle(path: Path) -> dict[str, Entry]:
    """The tensors of one file by their names in it, mapped without a copy."""
    table = load_safely(path)
    entries = {}
    for name, tensor in table.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor: this is no plain file "
                                  "of weights (a training state?); look for the file that holds the model alone")
        if tensor.dtype not in NAMES:
            raise CheckpointError(f"{path}: tensor {name!r} holds {tensor.dtype}; Ayllu reads float weights: take the "
                                  "checkpoint before it was quantised")
        shape = tuple(tensor.shape)
        if tensor.untyped_storage().nbytes() < count(shape) * tensor.dtype.itemsize:
            raise CheckpointError(f"{path}: tensor {name!r} claims shape {shape} over "
                                  f"{tensor.untyped_storage().nbytes()} stored bytes: {AGAIN}")
        entries[name] = Entry(shape, tensor.dtype, _give(tensor), path, NAMES[tensor.dtype], name)
    return entries


def load_safely(path: Path) -> dict[str, Any]:
    """`torch.load` that refuses code, and zip members that unpack to more than the file holds."""
    try:
        table = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_plain_zip(path))
    except Exception as error:                           # torch raises many kinds for damaged files, all named here
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            raise CheckpointError(
                f"{path}: its pickle wants to run code or make objects other than tensors, which Ayllu never allows: "
                "take the safetensors version of these weights, or convert it in a sandbox with the program that "
                "wrote it"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: torch can't read it ({reason}): {AGAIN}") from error
    for key in ("model", "state_dict"):                  # some files wrap the table once
        if isinstance(table, dict) and isinstance(table.get(key), dict):
            table = table[key]
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} holds a {type(table).__name__}, not a table of tensors")
    return table


def _is_plain_zip(path: Path) -> bool:
    """Whether torch can map the file: a zip, its members stored as they are (a compressed one may be a bomb)."""
    if not zipfile.is_zipfile(path):
        return False                                     # the format before torch 1.6, read without mapping
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: {error}: {AGAIN}") from error
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    if packed or sum(m.file_size for m in members) > path.stat().st_size:
        raise CheckpointError(f"{path}: its members {packed[:2]} are compressed or larger than the file: torch never "
                              "writes such a file, so it is refused; fetch the original")
    return True


def _give(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor
