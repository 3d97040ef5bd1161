"""Encoders on the CPU in fewer and larger operations, for reading only: what layers of encoder.py compute, in oneDNN.

Queries, keys and values are one product; the activation and the residual are computed inside products; weights lie in
oneDNN's blocked layout, for laid out anew in each product they cost up to a tenth of the time, in float32, too; float32
attention is native/whole.cpp's with AVX512. The slow twin is encoder.py; tests/media/test_fast.py says how far they may
differ.

B images or sounds  N places of one  D width  H heads  E head width
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.media.encoder import Activation, Layer
from ayllu.media.senses import Senses
from ayllu.model.fused import onednn_works
from ayllu.native import whole

# what oneDNN computes in a product; x sigmoid(1.702 x) is swish(1.702 x) / 1.702, the factors go into the weights
INSIDE: dict[Activation, tuple[str, list[Any], str]] = {
    "gelu": ("gelu", [], "none"), "gelu_tanh": ("gelu", [], "tanh"), "quick_gelu": ("swish", [], "")}
STEEP = 1.702


class Product:
    """x W^T + b."""

    def __init__(self, weight: Tensor, bias: Tensor, n_rows: int) -> None:
        self.bias = bias.contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), n_rows)

    def __call__(self, x: Tensor, activation: tuple[str, list[Any], str] = ("none", [], "")) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)

    def add(self, x: Tensor, other: Tensor) -> Tensor:
        """The product plus `other`."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")


class FastLayer(nn.Module):
    """As `Layer`, from whose weights it is made."""

    def __init__(self, layer: Layer, n_rows: int) -> None:
        super().__init__()
        attention, feed_forward = layer.attention, layer.feed_forward
        self.n_heads, self.activation = attention.n_heads, INSIDE[feed_forward.activation]
        self.norms = layer.attention_norm, layer.ffn_norm
        parts = attention.wq, attention.wk, attention.wv
        biases = [torch.zeros_like(part.weight[:, 0]) if part.bias is None else part.bias.detach() for part in parts]
        self.qkv = Product(torch.cat([part.weight.detach() for part in parts]), torch.cat(biases), n_rows)
        self.wo = Product(attention.wo.weight, attention.wo.bias, n_rows)
        steep = STEEP if feed_forward.activation == "quick_gelu" else 1.0
        self.w1 = Product(feed_forward.w1.weight * steep, feed_forward.w1.bias * steep, n_rows)
        self.w2 = Product(feed_forward.w2.weight / steep, feed_forward.w2.bias, n_rows)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, N, D)
        B, N, D = x.shape
        rows = x.reshape(B * N, D)
        qkv = self.qkv(self.norms[0](rows)).view(B, N, 3, self.n_heads, -1)
        if x.dtype == torch.float32 and whole.works():
            y = whole.attend(qkv)
        else:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)                    # (B, H, N, E)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        rows = self.wo.add(y.reshape(B * N, D), rows)
        return self.w2.add(self.w1(self.norms[1](rows), self.activation), rows).view(B, N, D)


@torch.no_grad()
def fast(senses: Senses) -> Senses:
    """The same senses with fast layers, where this processor and the weights' dtype allow it; for reading only: the
    layers' own weights are gone."""
    for part, n in ((senses.eye, senses.config.eye and senses.config.eye.vision.n_patches),
                    (senses.ear, senses.config.ear and senses.config.ear.audio.n_places)):
        weight = None if part is None else next(part.parameters())
        if part is None or weight is None or weight.device.type != "cpu" or weight.dtype not in (
                torch.float32, torch.bfloat16) or not onednn_works(weight.dtype):
            continue
        for i, layer in enumerate(part.encoder.layers):
            if isinstance(layer, Layer):
                part.encoder.layers[i] = FastLayer(layer, n or 1).requires_grad_(False)
    return senses.eval()
