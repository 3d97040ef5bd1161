"""The Llama family in one file, read from top to bottom.

Llama 1, 2, 3, 3.1 and 3.2 (text), Code Llama, TinyLlama, Mistral, Qwen2, SmolLM and Yi are this model with different
numbers. Sources: arXiv:2302.13971 (Llama), 2307.09288 (Llama 2), 2407.21783 (Llama 3), 2310.06825 (Mistral).

B batch  T tokens  D width  H query heads  K key/value heads  E head width  F feed-forward width  V vocabulary  L layers
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.model.attend import Attend, Causal
from ayllu.model.config import LlamaConfig, RopeScaling

R = TypeVar("R")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight, the mean taken in float32 (arXiv:1910.07467, eq. 4)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:                                   # (..., D)
        h = x.float()
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * h.to(x.dtype)


class Rope:
    """The rotation of one forward pass: pairs (i, i + E/2) turn by position * frequency_i (arXiv:2104.09864, eq. 34).

    This is the half-split layout of Hugging Face; Meta's files interleave the pairs and are permuted when read.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin                                         # (B or 1, T, 1, E)

    def __call__(self, x: Tensor) -> Tensor:                                  # (B, T, heads, E)
        a, b = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-b, a), dim=-1) * self.sin


def rope_frequencies(config: LlamaConfig, length: Tensor | None = None) -> tuple[Tensor, float]:
    """Radians per position for each of the E/2 pairs, in float32, and the factor on cos and sin (often 1).

    `length` (...), the tokens of each row so far, matters to dynamic NTK and LongRoPE: (E/2,) becomes (..., E/2).
    """
    E, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    device = length.device if length is not None else None
    exponent = torch.arange(0, E, 2, dtype=torch.float32, device=device) / E  # (E/2,)
    frequencies = 1.0 / theta**exponent
    if scaling is None:
        return frequencies, 1.0
    match scaling.kind:
        case "linear":
            return frequencies / scaling.factor, 1.0
        case "dynamic":
            return _dynamic_ntk(config, scaling, exponent, length), 1.0
        case "llama3":
            return _llama3(config, scaling, frequencies), 1.0
        case "yarn":
            return _yarn(config, scaling, frequencies)
        case "longrope":
            return _longrope(config, scaling, frequencies, length)


def _dynamic_ntk(config: LlamaConfig, scaling: RopeScaling, exponent: Tensor, length: Tensor | None) -> Tensor:
    """The base grows once a row is longer than the original context; a row's neighbours don't count."""
    if length is None:
        return 1.0 / config.rope_theta**exponent
    original = scaling.original_context or config.max_context
    stretch = scaling.factor * length.float().clamp(min=original) / original - (scaling.factor - 1)
    base = config.rope_theta * stretch ** (config.head_dim / (config.head_dim - 2))
    return 1.0 / base[..., None] ** exponent


def _llama3(config: LlamaConfig, scaling: RopeScaling, frequencies: Tensor) -> Tensor:
    """Long wavelengths are stretched, short ones kept, and a band between is blended (Llama 3.1)."""
    original = scaling.original_context or config.max_context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = original * frequencies / (2 * math.pi)                            # full turns within the original context
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor


def _yarn(config: LlamaConfig, scaling: RopeScaling, frequencies: Tensor) -> tuple[Tensor, float]:
    """NTK by parts with a softmax temperature (arXiv:2309.00071, section 3.2 and eq. 15)."""
    original = scaling.original_context or config.max_context

    def pair_with(turns: float) -> float:                                     # the pair that makes so many turns
        return config.head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    pair = torch.arange(len(frequencies), dtype=torch.float32, device=frequencies.device)
    stretch = ((pair - low) / ((high - low) or 0.001)).clamp(0, 1)            # 0: keep, 1: divide by factor
    mixed = frequencies * (1 - stretch) + frequencies / scaling.factor * stretch
    temperature = scaling.attention_factor
    if temperature is None:
        temperature = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return mixed, temperature


def _longrope(config: LlamaConfig, scaling: RopeScaling, frequencies: Tensor,
              length: Tensor | None) -> tuple[Tensor, float]:
    """One set of divisors up to the original context, another beyond it (arXiv:2402.13753, section 3.2)."""
    original = scaling.original_context or config.max_context
    temperature = scaling.attention_factor
    if temperature is None:
        temperature = math.sqrt(1 + math.log(scaling.factor) / math.log(original)) if scaling.factor > 1 else 1.0
    short, long = (frequencies / frequencies.new_tensor(f) for f in (scaling.short_factor, scaling.long_factor))
    return (short if length is None else torch.where(length[..., None] > original, long, short)), temperature


class Attention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245): H query heads share K key/value heads."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, q_width, bias=config.qkv_bias)
        self.wk = nn.Linear(config.dim, kv_width, bias=config.qkv_bias)
        self.wv = nn.Linear(config.dim, kv_width, bias=config.qkv_bias)
        self.wo = nn.Linear(q_width, config.dim, bias=config.out_bias)

    def forward(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:       # (B, T, D)
        B, T, _ = x.shape
        q = self.wq(x).view(B, T, -1, self.head_dim)                          # (B, T, H, E)
        k = self.wk(x).view(B, T, -1, self.head_dim)                          # (B, T, K, E)
        v = self.wv(x).view(B, T, -1, self.head_dim)                          # (B, T, K, E)
        y = attend(rope(q), rope(k), v)                                       # (B, T, H, E)
        return self.wo(y.reshape(B, T, -1))                                   # (B, T, D)


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x) (arXiv:2002.05202, eq. 6)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=config.mlp_bias)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=config.mlp_bias)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, T, D)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): norms come first, the residual path stays clean."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:       # (B, T, D)
        x = x + self.dropout(self.attention(self.attention_norm(x), rope, attend))
        return x + self.dropout(self.feed_forward(self.ffn_norm(x)))


class Llama(nn.Module):
    """Three verbs, `embed`, `trunk` and `logits`; `forward` is their composition. `head` lends what `logits` uses."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        if not config.tie_embeddings:
            self.output = nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, positions: Tensor | None = None,
                attends: Sequence[Attend] | None = None) -> Tensor:           # (B, T) -> (B, T, V)
        return self.logits(self.trunk(self.embed(ids), positions, attends))

    def embed(self, ids: Tensor) -> Tensor:                                   # (B, T) -> (B, T, D)
        return self.dropout(self.tok_embeddings(ids))

    def trunk(self, x: Tensor, positions: Tensor | None = None,
              attends: Sequence[Attend] | None = None) -> Tensor:             # (B, T, D) -> (B, T, D)
        """All layers and the last norm. `positions` (T,) or (B, T) count from 0; `attends` has one entry per layer."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        rope = self.rope(positions, x.dtype)
        for layer, attend in zip(self.layers, attends or self.causal(), strict=True):
            x = layer(x, rope, attend)
        return self.norm(x)

    def logits(self, h: Tensor) -> Tensor:                                    # (..., D) -> (..., V)
        return F.linear(h, self.tok_embeddings.weight) if self.config.tie_embeddings else self.output(h)

    def head(self, h: Tensor, use: Callable[[Tensor, Tensor], R]) -> R:
        """What `use(h, W)` makes of hidden states and the head's matrix W (V, D): a loss without all logits, say."""
        return use(h, self.tok_embeddings.weight if self.config.tie_embeddings else self.output.weight)

    def rope(self, positions: Tensor, dtype: torch.dtype) -> Rope:
        """The rotation for these positions, computed in float32."""
        rows = positions.reshape(-1, positions.shape[-1])                     # (B or 1, T)
        frequencies, temperature = rope_frequencies(self.config, rows.amax(-1, keepdim=True) + 1)
        angles = rows[..., None].float() * frequencies                        # (B or 1, T, E/2)
        angles = torch.cat((angles, angles), dim=-1)[:, :, None]              # (B or 1, T, 1, E)
        return Rope((angles.cos() * temperature).to(dtype), (angles.sin() * temperature).to(dtype))

    def causal(self) -> list[Attend]:
        """What training uses where nothing else is given: plain causal attention, windows where the model has them."""
        dropout = self.config.attention_dropout if self.training else 0.0
        return [Causal(self.config.window(i), dropout) for i in range(self.config.n_layers)]
