"""A folder with a module: its shapes as JSON, its weights as safetensors."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.errors import CheckpointError
from ayllu.files import atomic_folder, write_json
from ayllu.folder import inside

M = TypeVar("M", bound=nn.Module)


def write_module(folder: Path, module: nn.Module, config: Settings, stem: str, dtype: torch.dtype) -> None:
    """STEM.json and STEM.safetensors, both or none."""
    with atomic_folder(folder) as made:
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in module.state_dict().items()}
        save_file(tensors, made / f"{stem}.safetensors", metadata={"format": "pt"})
        write_json(made / f"{stem}.json", json.loads(config.model_dump_json()))


def read_module(folder: Path, make: Callable[[], M], stem: str, dtype: torch.dtype = torch.float32) -> M:
    """What `make` builds, with the weights of STEM.safetensors."""
    file = f"{stem}.safetensors"
    try:
        tensors = load_file(inside(folder, file))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / file}: {error}: the file is damaged; fetch it again") from error
    return filled(make, {name: tensor.to(dtype) for name, tensor in tensors.items()}, str(folder / file))


def filled(make: Callable[[], M], tensors: Mapping[str, Tensor], where: str) -> M:
    """What `make` builds, without memory of its own: every tensor must be there, in its shape, and no other."""
    with torch.device("meta"):
        module = make()
    own = module.state_dict()
    wrong = [f"{name} is missing" if name not in tensors else f"{name} isn't known" if name not in own else
             f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}" for name in {**own, **tensors}
             if name not in tensors or name not in own or tensors[name].shape != own[name].shape]
    if wrong:
        raise CheckpointError(f"{where} doesn't fit its config in {len(wrong)} tensors: {', '.join(wrong[:3])}: give "
                              "the files that belong together")
    module.load_state_dict(dict(tensors), assign=True)
    return module.eval()
