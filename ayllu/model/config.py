"""The shape of a Llama: every field that changes what the model computes, and nothing else."""

from typing import Literal

from pydantic import Field, model_validator

from ayllu.config import Settings


class RopeScaling(Settings):
    """How rotary positions are stretched past the context that the model was trained with.

    linear: positions divided by `factor` (arXiv:2306.15595). dynamic: NTK-aware, the base grows with the length
    (Hugging Face's form). yarn: arXiv:2309.00071. llama3: the wavelength bands of Llama 3.1.
    """

    kind: Literal["linear", "dynamic", "yarn", "llama3"]
    factor: float = Field(gt=0)
    original_context: int | None = None                  # None: the model's max_context
    low_freq_factor: float = 1.0                         # llama3
    high_freq_factor: float = 4.0                        # llama3
    beta_fast: float = 32.0                              # yarn
    beta_slow: float = 1.0                               # yarn
    attention_factor: float | None = None                # yarn; None: 0.1 ln(factor) + 1
    truncate: bool = True                                # yarn: whether the band's borders are rounded to whole dimensions


class LlamaConfig(Settings):
    """One Llama or relative. Widths are in numbers of features, contexts in tokens."""

    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    hidden_dim: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_context: int = Field(default=2048, gt=0)
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False                               # Qwen2
    out_bias: bool = False                               # HF's attention_bias: qkv_bias and out_bias together
    mlp_bias: bool = False
    tie_embeddings: bool = False
    sliding_window: int | None = Field(default=None, gt=0)   # a token sees itself and the window-1 before it
    first_sliding_layer: int = 0                         # Qwen2: the layers below this one see everything
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    residual_dropout: float = Field(default=0.0, ge=0, lt=1)
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> "LlamaConfig":
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads={self.n_heads} must be a multiple of n_kv_heads={self.n_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs of features")
        return self

    def window(self, layer: int) -> int | None:
        """The sliding window of a layer, or None where it sees the whole past."""
        return self.sliding_window if layer >= self.first_sliding_layer else None
