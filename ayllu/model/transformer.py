"""The original Transformer decoder in one file: the baseline that shows what Llama's changes buy.

Source: arXiv:1706.03762, the decoder without its encoder. Every change that Llama made (pre-norm, RMSNorm, rotary
positions, SwiGLU, grouped-query attention) can be switched on alone; all of them together are Llama.

B batch  T tokens  D width  H query heads  K key/value heads  E head width  F feed-forward width  V vocabulary
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.model.attend import Attend, Causal
from ayllu.model.config import TransformerConfig
from ayllu.model.llama import R, RMSNorm, Rope

Turn = Callable[[Tensor], Tensor]                        # what queries and keys go through: a rotation, or nothing


def frequencies(width: int, device: torch.device) -> Tensor:
    """Radians per position of each pair of features: 1 / 10000^(2i / width), in float32 (section 3.5)."""
    return 1.0 / 10_000.0 ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(the same): (..., T) -> (..., T, D)."""
    angles = positions[..., None].float() * frequencies(dim, positions.device)          # (..., T, D/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotation(positions: Tensor, head_dim: int, dtype: torch.dtype) -> Rope:
    """The rotary alternative: the same angles turn queries and keys instead of being added to the embeddings."""
    angles = positions.reshape(-1, positions.shape[-1], 1).float() * frequencies(head_dim, positions.device)
    angles = torch.cat((angles, angles), dim=-1)[:, :, None]                  # (B or 1, T, 1, E)
    return Rope(angles.cos().to(dtype), angles.sin().to(dtype))


class Attention(nn.Module):
    """softmax(q kT / sqrt(E)) v in H heads side by side, then one projection of all heads (section 3.2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_width, bias=False)
        self.wk = nn.Linear(config.dim, kv_width, bias=False)
        self.wv = nn.Linear(config.dim, kv_width, bias=False)
        self.wo = nn.Linear(q_width, config.dim, bias=False)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:       # (B, T, D)
        B, T, _ = x.shape
        q = self.wq(x).view(B, T, -1, self.head_dim)                          # (B, T, H, E)
        k = self.wk(x).view(B, T, -1, self.head_dim)                          # (B, T, K, E)
        v = self.wv(x).view(B, T, -1, self.head_dim)                          # (B, T, K, E)
        y = attend(turn(q), turn(k), v)                                       # (B, T, H, E): the softmax is in there
        return self.wo(y.reshape(B, T, -1))                                   # (B, T, D)


class ReluFeedForward(nn.Module):
    """max(0, x W1 + b1) W2 + b2 (section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim)
        self.w2 = nn.Linear(config.hidden_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, T, D)
        return self.w2(F.relu(self.w1(x)))


class SwigluFeedForward(nn.Module):
    """Llama's: w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, T, D)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """The paper's layer: norm(x + attention(x)), then norm(x + feed_forward(x)); or each norm before its part."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.is_pre = config.norm_place == "pre"
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.ffn_norm = _norm(config)
        self.feed_forward = _feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:       # (B, T, D)
        if self.is_pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), turn, attend))
            return x + self.dropout(self.feed_forward(self.ffn_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, turn, attend)))
        return self.ffn_norm(x + self.dropout(self.feed_forward(x)))


class LiteralBlock(nn.Module):
    """The specification's steps one after the other: attention, feed-forward, layer norm, dropout.

    It names no residual, so there is none. Attention stays causal though it doesn't say so: a model that sees the
    next token learns nothing by predicting it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = _feed_forward(config)
        self.norm = _norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:       # (B, T, D)
        return self.dropout(self.norm(self.feed_forward(self.attention(x, turn, attend))))


class Transformer(nn.Module):
    """The same three verbs as Llama: `embed`, `trunk` and `logits`; `forward` is their composition."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        block = LiteralBlock if config.order == "literal" else Block
        self.layers = nn.ModuleList(block(config) for _ in range(config.n_layers))
        if config.norm_place == "pre":
            self.norm = _norm(config)
        if not config.tie_embeddings:
            self.output = nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, positions: Tensor | None = None,
                attends: Sequence[Attend] | None = None) -> Tensor:           # (B, T) -> (B, T, V)
        return self.logits(self.trunk(self.embed(ids), positions, attends))

    def embed(self, ids: Tensor) -> Tensor:                                   # (B, T) -> (B, T, D)
        """Embeddings times sqrt(D) (section 3.4), which sizes them against the sinusoids that `trunk` adds."""
        x = self.tok_embeddings(ids)
        return x * math.sqrt(self.config.dim) if self.config.positions == "sinusoidal" else x

    def trunk(self, x: Tensor, positions: Tensor | None = None,
              attends: Sequence[Attend] | None = None) -> Tensor:             # (B, T, D) -> (B, T, D)
        """Positions and all layers. `positions` (T,) or (B, T) count from 0; `attends` has one entry per layer."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        turn: Turn = _unturned
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.dim).to(x.dtype)
        else:
            turn = rotation(positions, self.config.head_dim, x.dtype)
        x = self.dropout(x)
        for layer, attend in zip(self.layers, attends or self.causal(), strict=True):
            x = layer(x, turn, attend)
        return self.norm(x) if self.config.norm_place == "pre" else x

    def logits(self, h: Tensor) -> Tensor:                                    # (..., D) -> (..., V)
        return F.linear(h, self.tok_embeddings.weight) if self.config.tie_embeddings else self.output(h)

    def head(self, h: Tensor, use: Callable[[Tensor, Tensor], R]) -> R:
        """What `use(h, W)` makes of hidden states and the head's matrix W (V, D): a loss without all logits, say."""
        return use(h, self.tok_embeddings.weight if self.config.tie_embeddings else self.output.weight)

    def causal(self) -> list[Attend]:
        """What training uses where nothing else is given."""
        return [Causal() for _ in range(self.config.n_layers)]


def _norm(config: TransformerConfig) -> nn.Module:
    kind = RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.dim, config.norm_eps)


def _feed_forward(config: TransformerConfig) -> nn.Module:
    return SwigluFeedForward(config) if config.feed_forward == "swiglu" else ReluFeedForward(config)


def _unturned(x: Tensor) -> Tensor:
    return x
