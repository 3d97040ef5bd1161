"""`load_checkpoint(name_or_path)`: find the checkpoint, see its format, build the model and stream the weights in."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.hf import open_hf
from ayllu.checkpoint.licence import Licence
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.device import pick_device, pick_dtype
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama

if TYPE_CHECKING:
    from ayllu.text.tokenizer import Tokenizer


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
                    device: str | torch.device | None = None) -> Checkpoint:
    """Load a model with its tokenizer. `dtype` None keeps the file's own (Q8_0: float32), `device` None is the CPU."""
    source = open_checkpoint(name_or_path)
    model = build_model(source, dtype=dtype, device=device)
    return Checkpoint(model=model, config=source.config, tokenizer=source.open_tokenizer(),
                      generation=source.generation, chat_template=source.chat_template, licence=source.licence,
                      path=source.path, format=source.format)


def open_checkpoint(name_or_path: str | Path) -> OpenCheckpoint:
    """The lazy form: headers are read and checked, weights are not."""
    path = Path(name_or_path)
    if (path / "config.json").is_file():
        return open_hf(path)
    raise CheckpointError(f"{path} is not a checkpoint that Ayllu knows")


def build_model(source: OpenCheckpoint, *, dtype: str | torch.dtype | None = None,
                device: str | torch.device | None = None) -> Llama:
    """A Llama in eval mode. It starts on the meta device and takes one tensor after the other, so that memory holds one
    model at most; on the CPU, and where the dtype fits, the weights stay views of the mapped file."""
    kind = source.dtype if dtype is None else pick_dtype(dtype) if isinstance(dtype, str) else dtype
    place = torch.device("cpu") if device is None else pick_device(str(device))
    with torch.device("meta"):
        model = Llama(source.config)
    for name, tensor in source.tensors():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(place, kind)))
    return model.eval()
