"""The model as the forward and backward pass of training see it: the same parameters, other arithmetic around them.

A copy of the modules shares the parameters of the model, so that gradients, optimiser, checkpoints and evaluation know
nothing of it. In the copy, blocks may be compiled (one graph for all of them), compute in bfloat16 from float32 weights
(the masters), or forget their activations and compute them again in the backward pass (arXiv:1604.06174).
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ayllu.model.attend import Attend
from ayllu.model.build import CausalModel
from ayllu.model.llama import Rope

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
    if precision == "bf16_masters":
        twin.tok_embeddings.register_forward_hook(lambda module, inputs, output: output.to(torch.bfloat16))
        twin.norm = InBfloat16(twin.norm)
    for number, block in enumerate(twin.layers):
        if precision == "bf16_masters":
            block = InBfloat16(block)
        if compiled:
            block.compile()
        twin.layers[number] = Recomputed(block) if recomputes else block
    if compiled:
        twin.norm.compile()
    return twin
