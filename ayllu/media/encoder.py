"""The layer that vision and audio encoders share: a Transformer's, with its norm first and every token seen by all.

B images or sounds  N places of one  D width  H heads  E head width  F feed-forward width
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.model.attend import sdpa

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]


class Shape(Settings):
    """Of a stack of layers."""

    dim: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    activation: Activation = "gelu"
    norm_eps: float = 1e-5
    key_bias: bool = True                                # Whisper's keys have none


class Attention(nn.Module):
    """softmax(q kT / sqrt(E)) v over all places."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.wq = nn.Linear(shape.dim, shape.dim)
        self.wk = nn.Linear(shape.dim, shape.dim, bias=shape.key_bias)
        self.wv = nn.Linear(shape.dim, shape.dim)
        self.wo = nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor, memory: Tensor | None = None,
                mask: Tensor | None = None) -> Tensor:                        # (B, N, D), (B, M, D) -> (B, N, D)
        """`memory` is what is looked at, by default x itself; `mask` (B, 1, N, M) is True where it may be."""
        memory = x if memory is None else memory
        q, k, v = (w(t).unflatten(-1, (self.n_heads, -1)) for w, t in
                   ((self.wq, x), (self.wk, memory), (self.wv, memory)))      # (B, N, H, E)
        return self.wo(sdpa(q, k, v, mask).flatten(-2))


class FeedForward(nn.Module):
    """w2(activation(w1 x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.w1 = nn.Linear(shape.dim, shape.hidden_dim)
        self.w2 = nn.Linear(shape.hidden_dim, shape.dim)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, N, D)
        return self.w2(activate(self.w1(x), self.activation))


def activate(x: Tensor, kind: Activation) -> Tensor:
    """GELU, its tanh form, or x sigmoid(1.702 x), which OpenAI's CLIP has (arXiv:1606.08415)."""
    if kind == "quick_gelu":
        return x * (1.702 * x).sigmoid()
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.dim, shape.norm_eps)
        self.attention = Attention(shape)
        self.ffn_norm = nn.LayerNorm(shape.dim, shape.norm_eps)
        self.feed_forward = FeedForward(shape)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, N, D)
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))
