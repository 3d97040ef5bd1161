"""The model as the forward and backward pass of training see it: the same parameters, other arithmetic around them.

A copy of the modules shares the parameters of the model, so that gradients, optimiser, checkpoints and evaluation know
nothing of it. In the copy, blocks may be compiled (one graph for all of them), compute in bfloat16 from float32 weights
(the masters), or forget their activations and compute them again in the backward pass (arXiv:1604.06174).
"""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ayllu.model.attend import Attend
from ayllu.model.build import CausalModel
from ayllu.model.llama import Rope
from ayllu.train.losses import Loss

Precision = Literal["float32", "autocast", "bf16_masters"]


class InBfloat16(nn.Module):
    """Calls a module with its weights rounded to bfloat16; their gradients come back in float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor | Rope | Attend) -> Tensor:
        rounded = {name: p.to(torch.bfloat16) for name, p in self.module.named_parameters()}
        return functional_call(self.module, rounded, inputs)


class Recomputed(nn.Module):
    """Calls a block and keeps only its input for the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor | Rope | Attend) -> Tensor:
        return checkpoint(self.module, *inputs, use_reentrant=False)


def trainee(model: CausalModel, precision: Precision, compiled: bool, recomputes: bool) -> CausalModel:
    """A copy of `model` over the same parameters, always in training mode."""
    twin = copy.deepcopy(model, memo={id(p): p for p in model.parameters()}).train()
    is_low = precision == "bf16_masters"
    if is_low:
        twin.tok_embeddings.register_forward_hook(lambda module, inputs, output: output.to(torch.bfloat16))
    for owner, name in [(twin.layers, str(n)) for n in range(len(twin.layers))] + [(twin, "norm")]:
        module = getattr(owner, name, None)
        if module is None:                               # the original Transformer ends without a norm
            continue
        if is_low:
            module = InBfloat16(module)
        if compiled:
            module.compile()
        setattr(owner, name, Recomputed(module) if recomputes and owner is twin.layers else module)
    return twin


class TraineeLoss:
    """A loss that runs on a trainee of the model it is called with; a model in shares (DTensors) runs as it is."""

    def __init__(self, loss: Callable[[CausalModel, Any], Loss], precision: Precision, compiled: bool,
                 recomputes: bool) -> None:
        self.loss, self.how = loss, (precision, compiled, recomputes)
        self._made: tuple[CausalModel, CausalModel] | None = None    # the model, and its trainee

    def __call__(self, model: CausalModel, batch: Any) -> Loss:
        if self._made is None or self._made[0] is not model:
            self._made = model, self._trainee(model)
        return self.loss(self._made[1], batch)

    def _trainee(self, model: CausalModel) -> CausalModel:
        if not any(isinstance(p, DTensor) for p in model.parameters()):
            return trainee(model, *self.how)
        return model
