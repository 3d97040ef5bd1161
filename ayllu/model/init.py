"""Initial values that depend on each parameter's name and the seed alone, not on the order or the sharding."""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

STD = 0.02


def initialise(model: nn.Module, n_layers: int, seed: int) -> None:
    """Fill `model` in place: normal(0, 0.02), residual outputs divided by sqrt(2L) (GPT-2), norms 1, biases 0.

    Each tensor is drawn on the CPU in float32, so every device and number of ranks starts from the same values.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(first_value(name, parameter.shape, n_layers, seed))


def first_value(name: str, shape: torch.Size, n_layers: int, seed: int,
                device: torch.device | str = "cpu") -> Tensor:
    """What one parameter begins with, drawn on the device: a GPU's numbers are others, and come in no time."""
    if name.endswith("bias"):
        return torch.zeros(shape, device=device)
    if len(shape) == 1:
        return torch.ones(shape, device=device)
    std = STD / math.sqrt(2 * n_layers) if name.endswith(("wo.weight", "w2.weight")) else STD
    return torch.empty(shape, device=device).normal_(0.0, std, generator=generator(seed, name, device))


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator of its own for one name: the same seed and name give the same numbers on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Uninitialised(TorchFunctionMode):
    """A context in which modules are made without initial values, for those that get their weights from elsewhere.

    On the meta device torch's own initialisation would do nothing, and import torch._dynamo (over a second) for it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
