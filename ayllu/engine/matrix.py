"""Products of a fused runner in C++ (native/step.py), for bfloat16 on CPUs without AMX.

There torch's products of bfloat16 take several times as long as they need to (benchmarks/products.py). The slow twin is
`ayllu.model.fused.Matrix`. The same packed weights serve whole steps (engine/step_native.py).

N tokens
"""

import torch
from torch import Tensor, nn

from ayllu.log import say
from ayllu.model.config import LlamaConfig
from ayllu.model.fused import Matrix, Modules, OwnedMatrix
from ayllu.model.llama import Llama
from ayllu.native.build import NativeError, missing, multiplies_bfloat16
from ayllu.native.step import HALF, Packed, bytes_worth_a_thread, load, side_by_side, threads_for, why_not


class NativeMatrix(OwnedMatrix):
    """x W^T + b in C++."""

    @classmethod
    def of_gate(cls, modules: Modules) -> Matrix:
        """Packed as a whole step reads them."""
        return NativeGate(modules)

    def packed(self, weight: Tensor) -> Tensor:                               # (out, in) -> tiles
        """Packed for the kernel."""
        return self._keep(Packed(weight, self.bias))

    def _keep(self, product: Packed) -> Tensor:
        self.product, self._n_bytes, self._worth = product, 2 * product.shape.numel(), bytes_worth_a_thread()
        return product.weight

    def plain(self) -> Tensor:                                                # (out, in)
        """A copy: the same numbers in another order."""
        return self.product.unpacked()

    def __call__(self, x: Tensor) -> Tensor:                                  # (N, in) -> (N, out)
        return self._of(x, None)

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """The product plus `other` (N, out)."""
        return self._of(x, other.contiguous())

    def _of(self, x: Tensor, more: Tensor | None) -> Tensor:
        return self.product(x.contiguous(), more, threads_for(self._n_bytes, len(x), self._worth))


class NativeGate(NativeMatrix):
    """w1 and w3, which lie side by side."""

    def packed(self, weight: Tensor) -> Tensor:                               # (2 F, in) -> tiles
        """Packed for the kernel."""
        bias = None if self.bias is None else side_by_side(self.bias[:, None])[:, 0]
        return self._keep(Packed(side_by_side(weight), bias))

    def plain(self) -> Tensor:                                                # (2 F, in)
        """A copy: the same numbers in another order."""
        return _one_after_the_other(super().plain().T).T

    def __call__(self, x: Tensor) -> Tensor:                                  # (N, in) -> (N, 2 F)
        return _one_after_the_other(super().__call__(x))


def _one_after_the_other(y: Tensor) -> Tensor:                                # (..., 2 F), `side_by_side` -> (..., 2 F)
    return y.unflatten(-1, (-1, 2, HALF)).transpose(-3, -2).flatten(-3)


def widths(config: LlamaConfig) -> tuple[int, ...]:
    """How many numbers its matrices take."""
    return config.dim, config.n_heads * config.head_dim, config.hidden_dim


def matrix_for(model: nn.Module) -> type[Matrix] | None:
    """What multiplies this model's weights, if oneDNN is not to."""
    if missing() is None or not multiplies_bfloat16() or not isinstance(model, Llama):
        return None
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    if kinds != {("cpu", torch.bfloat16)} or why_not(widths(model.config)):
        return None
    try:
        load()
    except (NativeError, OSError) as error:
        say(f"products go through torch, which is slower: {error}")
        return None
    return NativeMatrix
