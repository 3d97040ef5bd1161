"""`load_checkpoint(name_or_path)`: find the checkpoint, see its format, build the model and stream the weights in."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.gguf import open_gguf
from ayllu.checkpoint.hf import open_hf
from ayllu.checkpoint.licence import Licence
from ayllu.checkpoint.llama2c import looks_like_llama2c, open_llama2c
from ayllu.checkpoint.manifest import verify_manifest
from ayllu.checkpoint.meta import open_meta
from ayllu.checkpoint.resolve import resolve
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.device import pick_device, pick_dtype
from ayllu.errors import CheckpointError
from ayllu.log import warn
from ayllu.model.config import LlamaConfig
from ayllu.model.init import Uninitialised
from ayllu.model.llama import Llama
from ayllu.model.stretch import stretched

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer


class Builder(Protocol):
    """As `build_model`."""

    def __call__(self, source: OpenCheckpoint, *, dtype: str | torch.dtype | None = None,
                 device: str | torch.device | None = None) -> Llama:
        """A model with the source's weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run, and everything that came with it."""

    model: Llama
    config: LlamaConfig
    tokenizer: "Tokenizer | None"
    generation: GenerationDefaults
    chat_template: str | None
    licence: Licence | None
    path: Path
    format: str


def load_checkpoint(name_or_path: str | Path, *, dtype: str | torch.dtype | None = None,
                    device: str | torch.device | None = None, verify: bool = False,
                    rope_scaling: str | None = None, context: int | None = None,
                    build: "Builder | None" = None) -> Checkpoint:
    """Load a model with its tokenizer. `dtype` None keeps the file's own (Q8_0: float32), `device` None is the CPU.

    `rope_scaling` ("yarn:4") and `context` take the place of the file's own (ayllu/model/stretch.py).
    `verify` first compares every file of the folder with the SHA-256 in the manifest that Ayllu wrote. `build` may take
    `build_model`'s place: ranks build their shares.
    """
    source = open_checkpoint(name_or_path)
    source = replace(source, config=stretched(source.config, rope_scaling, context))
    if verify:
        verify_manifest(source.path if source.path.is_dir() else source.path.parent)
    model = (build or build_model)(source, dtype=dtype, device=device)
    tokenizer = source.open_tokenizer()
    if tokenizer is not None and tokenizer.vocab_size > source.config.vocab_size:
        warn(f"{source.path}: the tokenizer has {tokenizer.vocab_size} ids, the model {source.config.vocab_size}: the "
             "last "
             "ones (added tokens?) have no weights and can't be used")
    return Checkpoint(model=model, config=source.config, tokenizer=tokenizer,
                      generation=source.generation, chat_template=source.chat_template, licence=source.licence,
                      path=source.path, format=source.format)


def open_checkpoint(name_or_path: str | Path) -> OpenCheckpoint:
    """The lazy form: headers are read and checked, weights are not."""
    path = name_or_path
    try:
        path = resolve(name_or_path)
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def build_model(source: OpenCheckpoint, *, dtype: str | torch.dtype | None = None,
                device: str | torch.device | None = None) -> Llama:
    """A Llama in eval mode. It starts on the meta device and takes one tensor after the other, so that memory holds one
    model at most; on the CPU, and where the dtype fits, the weights stay views of the mapped file."""
    kind = source.dtype if dtype is None else pick_dtype(dtype) if isinstance(dtype, str) else dtype
    place = torch.device("cpu") if device is None else pick_device(str(device))
    with torch.device("meta"), Uninitialised():
        model = Llama(source.config)
    for name, tensor in source.tensors():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(place, kind)))
    return model.eval()


def _open_folder(folder: Path) -> OpenCheckpoint:
    if (folder / "config.json").is_file():
        return open_hf(folder)
    if (folder / "params.json").is_file():
        return open_meta(folder)
    found = [*sorted(folder.glob("*.gguf")), *(p for p in sorted(folder.glob("*.bin")) if looks_like_llama2c(p))]
    if len(found) == 1:
        return _open_file(found[0])
    if found:
        raise CheckpointError(f"{folder} holds {len(found)} models: name one of {', '.join(p.name for p in found)}")
    raise CheckpointError(f"{folder} holds no checkpoint: expected config.json (Hugging Face), params.json (Meta), one "
                          ".gguf or one llama2.c .bin file")


def _open_file(path: Path) -> OpenCheckpoint:
    """By the first bytes, not by the name; a file of weights stands for its folder."""
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder")
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return open_gguf(path)
    for config, open_folder in (("config.json", open_hf), ("params.json", open_meta)):
        part_of = path.suffix in (".safetensors", ".json", ".pth") or magic[:2] in (b"PK", b"\x80\x02")
        if part_of and (path.parent / config).is_file():
            return open_folder(path.parent.resolve())
    if path.suffix in (".safetensors", ".pth") or magic[:2] == b"PK":
        raise CheckpointError(f"{path} holds weights only; the config.json or params.json beside it is missing: name "
                              "the whole folder")
    return open_llama2c(path)
