"""The model as the forward and backward pass of training see it: the same parameters, other arithmetic around them.

A copy of the modules shares the parameters of the model, so that gradients, optimiser, checkpoints and evaluation know
nothing of it. In the copy, blocks may be compiled (one graph for all of them), compute in bfloat16 from float32 weights
(the masters), or forget their activations and compute them again in the backward pass (arXiv:1604.06174).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ayllu.model.attend import Attend, Causal, Within
from ayllu.model.build import CausalModel
from ayllu.model.llama import Rope
from ayllu.model.parallel import Precision
from ayllu.native import attention, linear
from ayllu.train.losses import Loss

KEPT = 0.6                                               # of what a compiled block would keep; measured in float32


class InBfloat16(nn.Module):
    """Calls a module with its weights rounded to bfloat16; their gradients come back in float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor | Rope | Attend) -> Tensor:
        rounded = {name: p.to(torch.bfloat16) for name, p in self.module.named_parameters()}
        return functional_call(self.module, rounded, inputs)


@dataclass(frozen=True)
class NativeAttend:
    """Attention without dropout by the kernel of ayllu/native, where that takes the numbers; autocast rounds them."""

    twin: Causal | Within

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            q, k, v = (t.to(torch.get_autocast_dtype("cpu")) for t in (q, k, v))
        if not attention.fits(q, k):
            return self.twin(q, k, v)
        if isinstance(self.twin, Within):
            return attention.attention(q, k, v, self.twin.first, self.twin.end)
        B, T = q.shape[:2]
        if self.twin.window is None or self.twin.window >= T:
            return attention.attention(q, k, v)
        end = torch.arange(1, T + 1, dtype=torch.int32)
        first = (end - self.twin.window).clamp(min=0)
        return attention.attention(q, k, v, first.repeat(B, 1), end.repeat(B, 1))


class NativeLinear(nn.Linear):
    """A linear layer whose weight's gradient comes from ayllu/native, where that takes the numbers."""

    def forward(self, input: Tensor) -> Tensor:          # the name that nn.Linear has
        if self.bias is None and self.weight.requires_grad and linear.fits(input, self.weight):
            return linear.linear(input, self.weight)
        return super().forward(input)


class WithNative(nn.Module):
    """Calls a block with the kernels: its linear layers, and attention over one stretch of keys a token."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for part in module.modules():
            if type(part) is nn.Linear:
                part.__class__ = NativeLinear            # the module is a trainee's own copy

    def forward(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:
        if isinstance(attend, Within) or (isinstance(attend, Causal) and not attend.dropout):
            attend = NativeAttend(attend)
        return self.module(x, rope, attend)


class Recomputed(nn.Module):
    """Calls a block and keeps only its input for the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor | Rope | Attend) -> Tensor:
        return checkpoint(self.module, *inputs, use_reentrant=False)


def trainee(model: CausalModel, precision: Precision, compiled: bool, recomputes: bool,
            native: bool = False, ragged: bool = False) -> CausalModel:
    """A copy of `model` over the same parameters, always in training mode; `ragged`: for rows of any length."""
    twin = copy.deepcopy(model, memo={id(t): t for t in (*model.parameters(), *model.buffers())}).train()
    is_low = precision == "bf16_masters"
    if compiled:
        on_cpu = all(p.device.type == "cpu" and not isinstance(p, DTensor) for p in model.parameters())
        _keep(KEPT if precision == "float32" and on_cpu else 1.0)             # of shares, torch 2.13 can't count bytes
    if is_low:
        twin.tok_embeddings.register_forward_hook(lambda module, inputs, output: output.to(torch.bfloat16))
    for owner, name in [(twin.layers, str(n)) for n in range(len(twin.layers))] + [(twin, "norm")]:
        module = getattr(owner, name, None)
        if module is None:                               # the original Transformer ends without a norm
            continue
        if native and owner is twin.layers:
            module = WithNative(module)
        if is_low:
            module = InBfloat16(module)
        if compiled:
            module.compile(dynamic=ragged or None)       # else each length would have its graph
        setattr(owner, name, Recomputed(module) if recomputes and owner is twin.layers else module)
    return twin


def _keep(share: float) -> None:
    """How much blocks that are compiled from here on keep for the backward pass. In float32, norms and SwiGLU's product
    are cheap beside the products and come again: a fifth less, for the same gradients (tests/train/test_trainee.py)."""
    from torch._functorch import config as compiler  # slow to import, and needed only here

    compiler.activation_memory_budget = share


class TraineeLoss:
    """A loss that runs on a trainee of the model it is called with.

    A model in FSDP2's shares runs as it is: it can't be copied, and `build_sharded` has built the same into it.
    `trims`: packed batches lose the padding that ends all their rows.
    """

    def __init__(self, loss: Callable[[CausalModel, Any], Loss], precision: Precision, compiled: bool,
                 recomputes: bool, native: bool = False, trims: bool = False) -> None:
        self.loss, self.trims, self.how = loss, trims, (precision, compiled, recomputes, native, trims)
        self._made: tuple[CausalModel, CausalModel] | None = None    # the model, and its trainee

    def __call__(self, model: CausalModel, batch: Any) -> Loss:
        if self._made is None or self._made[0] is not model:
            self._made = model, self._trainee(model)
        return self.loss(self._made[1], batch.trimmed() if self.trims else batch)

    def _trainee(self, model: CausalModel) -> CausalModel:
        return model if isinstance(model, FSDPModule) else trainee(model, *self.how)
