"""A frozen linear layer whose weight lies in NF4 and is unpacked for each product, forwards and backwards."""

from typing import Any

import torch
from torch import Tensor, nn

from ayllu.quant.nf4 import Packed, dequantise, quantise


class Nf4Linear(nn.Linear):
    """As nn.Linear with a weight that can't be trained; nothing of its own size is kept between products."""

    codes: Tensor
    scales: Tensor
    steps: Tensor
    mean: Tensor

    def __init__(self, inputs: int, outputs: int, packed: Packed, bias: Tensor | None = None) -> None:
        nn.Module.__init__(self)                         # nn.Linear's own would make a whole weight
        self.in_features, self.out_features = inputs, outputs
        for name in ("codes", "scales", "steps", "mean"):
            self.register_buffer(name, getattr(packed, name), persistent=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    @property
    def packed(self) -> Packed:
        """What is stored."""
        return Packed(self.codes, self.scales, self.steps, self.mean)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(outputs, inputs) in bfloat16, unpacked now."""
        return dequantise(self.packed, (self.out_features, self.in_features), torch.bfloat16)

    def forward(self, input: Tensor) -> Tensor:          # the name that nn.Linear has
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        shape = (self.out_features, self.in_features)
        y: Tensor = _Product.apply(input.to(dtype), *self.packed.tensors, shape, dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Product(torch.autograd.Function):
    """x Wᵀ, whose backward pass unpacks W again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, steps: Tensor, mean: Tensor,
                shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(codes, scales, steps, mean)
        ctx.how = shape, dtype
        return x @ dequantise(Packed(codes, scales, steps, mean), shape, dtype).t()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy @ dequantise(Packed(*ctx.saved_tensors), *ctx.how), None, None, None, None, None, None


def pack_linear(weight: Tensor, bias: Tensor | None = None) -> Nf4Linear:
    """A layer with this weight (outputs, inputs) in NF4; the weight can be let go of."""
    outputs, inputs = weight.shape
    return Nf4Linear(inputs, outputs, quantise(weight), bias)
