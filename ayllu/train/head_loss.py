"""The head's product and cross-entropy in one, over chunks of tokens: no more than one chunk's logits ever exist.

The gradients come out of the forward pass, while a chunk's logits are at hand: three matrix products for each chunk
and nothing computed twice. The idea is that of Liger Kernel (arXiv:2410.10989, section 3.2). The slow twin is
`plain_loss` in losses.py; tests/train/test_head_loss.py says how far they may differ.

N tokens  C tokens of a chunk  D width  V vocabulary
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ayllu.native import head

CHUNK_NUMBERS = {"cpu": 512 * 32_000}                    # logits of a chunk in 16 bits, half as many in float32
WORTH_LEAVING_OUT = 8                                    # one in so many places without a weight pays for a copy
GPU_NUMBERS = 1 << 28                                    # on a GPU large products matter more

# (logits (C, V), labels (C,), weights (C,), z_loss, label_smoothing) -> losses (C,) and their gradient in two factors
Softmax = Callable[[Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor, Tensor]]


def softmax_loss(logits: Tensor, labels: Tensor, weights: Tensor, z_loss: float,
                 label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each place's weighted loss (C,), and two factors of its gradient: (C, V) in the logits' dtype and (C, 1).

    loss = weight (log Z - (1 - s) x[label] - s mean(x) + z (log Z)²), with Z = sum(exp(x)); its gradient is
    weight ((1 + 2 z log Z) exp(x) / Z - (1 - s) [label] - s / V). The division by Z is left to the products that
    follow, which are small beside (C, V). Sums are float32, and what belongs to the label is formed in float32.
    """
    V, s, label = logits.shape[-1], label_smoothing, labels[:, None]
    x = logits.float()
    largest = x.amax(-1, keepdim=True)                                        # (C, 1)
    powers = (x - largest).exp()                                              # (C, V)
    total = powers.sum(-1, keepdim=True)
    log_z = largest + total.log()
    each = log_z - (1 - s) * x.gather(-1, label)
    growth = torch.ones_like(log_z)                                           # of the loss with log Z
    if s:
        each = each - s * x.mean(-1, keepdim=True)
    if z_loss:
        each = each + z_loss * log_z.square()
        growth = 1 + 2 * z_loss * log_z
    share = total / growth                                                    # what 1 is in units of the first factor
    first = powers - share * s / V if s else powers
    at_label = (x.gather(-1, label) - largest).exp() - share * (1 - s + s / V)
    first = first.to(logits.dtype).scatter_(-1, label, at_label.to(logits.dtype))
    return each[:, 0] * weights, first, weights[:, None] / share


def add_to(total: Tensor, part: Tensor) -> Tensor:
    """total += part, of a lower precision: one pass if compiled, where eager torch converts `part` before."""
    return total.add_(part)


@dataclass(frozen=True)
class Kernels:
    """What goes over a chunk's numbers beside its products, and gains much from a compiler."""

    softmax: Softmax = softmax_loss
    add: Callable[[Tensor, Tensor], Tensor] = add_to
    native: bool = False                                 # the whole sweep in C++ where it can be (native/head.py)

    @classmethod
    def compiled(cls, native: bool = False) -> "Kernels":
        """Each as one compiled kernel."""
        return cls(torch.compile(softmax_loss), torch.compile(add_to), native)


EAGER = Kernels()


@dataclass(frozen=True)
class HeadLoss:
    """Called with hidden states (N, D) and the head's matrix (V, D); returns (sum of the losses, each one (N,)).

    `weights` (N,) are 0 where nothing is learned; a label there may be any id.
    """

    labels: Tensor
    weights: Tensor
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk: int | None = None                             # tokens; None: by the vocabulary and the device
    kernels: Kernels = EAGER
    leaves_out: bool = True                              # places without a weight, on a CPU

    def __call__(self, hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return _Function.apply(hidden, weight, self, torch.is_grad_enabled())

    def tokens(self, weight: Tensor) -> int:
        """How many tokens make a chunk."""
        numbers = CHUNK_NUMBERS.get(weight.device.type, GPU_NUMBERS) // (weight.dtype.itemsize // 2)
        return self.chunk or max(numbers // weight.shape[0] // 64 * 64, 64)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, loss: HeadLoss, learns: bool) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            each, by_hidden, by_weight = _learned(hidden.to(dtype), weight.to(dtype), loss,
                                                  learns and hidden.requires_grad, learns and weight.requires_grad)
        ctx.save_for_backward(by_hidden, by_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        # Where the factor is 1 nothing is multiplied. A GPU would have to be waited for, and a graph has no value yet.
        as_it_is = not torch.compiler.is_compiling() and upstream.device.type == "cpu" and upstream.item() == 1
        by_hidden, by_weight = (None if gradient is None else (gradient if as_it_is else gradient * upstream).to(dtype)
                                for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return by_hidden, by_weight, None, None


def _learned(hidden: Tensor, weight: Tensor, loss: HeadLoss, by_hidden: bool,
             by_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`_fastest` of the places that have a weight: the others cost and give nothing. The slow twin computes all.

    How many there are must be asked of the tensor, which a GPU would have to be waited for and a graph can't do.
    """
    N = len(hidden)
    if torch.compiler.is_compiling() or hidden.device.type != "cpu" or not loss.leaves_out or (
            int((loss.weights == 0).sum()) * WORTH_LEAVING_OUT <= N):
        return _fastest(hidden, weight, loss, by_hidden, by_weight)
    places = loss.weights.nonzero()[:, 0]
    few = replace(loss, labels=loss.labels[places], weights=loss.weights[places])
    each, dx, dw = _fastest(hidden[places], weight, few, by_hidden, by_weight)
    wide = None if dx is None else dx.new_zeros(hidden.shape).index_copy_(0, places, dx)
    return each.new_zeros(N).index_copy_(0, places, each), wide, dw


def _fastest(hidden: Tensor, weight: Tensor, loss: HeadLoss, by_hidden: bool,
             by_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The sweep in C++ where that is wanted and takes these numbers, or else `_sweep`, its slow twin."""
    if loss.kernels.native and not loss.label_smoothing and head.fits(hidden, weight):
        chunk = loss.chunk or 2 * loss.tokens(weight)    # of bfloat16 numbers, where the twin has float32 ones too
        done = head.head_loss(hidden, weight, loss.labels, loss.weights, loss.z_loss, chunk, by_hidden, by_weight)
        if done is not None:
            return done
    return _sweep(hidden, weight, loss, by_hidden, by_weight)


def _sweep(hidden: Tensor, weight: Tensor, loss: HeadLoss, by_hidden: bool,
           by_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses (N,) and the gradients of their sum that are wanted; the weight's is summed in float32.

    Products of bfloat16 whose factors both lie row by row are up to twice as fast on a CPU, so there the matrix is
    transposed once and its gradient is formed transposed; float32's and a GPU's products don't mind.
    """
    size, by_rows = loss.tokens(weight), weight.device.type == "cpu" and weight.dtype != torch.float32
    transposed = weight.t().contiguous() if by_rows else weight.t()           # (D, V)
    each, hidden_parts, total = [], [], None
    for x, labels, weights in zip(hidden.split(size), loss.labels.split(size), loss.weights.split(size), strict=True):
        losses, first, second = loss.kernels.softmax(x @ transposed, labels, weights, loss.z_loss, loss.label_smoothing)
        each.append(losses)
        if by_hidden:
            hidden_parts.append((first @ weight) * second)                    # (C, D)
        if by_weight:
            scaled = (x * second).to(x.dtype)                                 # (C, D)
            if total is not None and total.dtype == first.dtype and not by_rows:
                total = total.addmm_(first.t(), scaled)  # (V, D), and no second one beside it
                continue
            part = scaled.t().contiguous() @ first if by_rows else first.t() @ scaled      # (D, V) or (V, D)
            total = part.float() if total is None else loss.kernels.add(total, part)
    if total is not None and by_rows:
        total = total.t().contiguous()
    return torch.cat(each), torch.cat(hidden_parts) if by_hidden else None, total
