"""The shape of a model: every field that changes what it computes, and nothing else."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ayllu.config import Settings


class RopeScaling(Settings):
    """How rotary positions are stretched past the context that the model was trained with.

    linear: positions divided by `factor` (arXiv:2306.15595). dynamic: NTK-aware, the base grows with the length
    (Hugging Face's form). yarn: arXiv:2309.00071. llama3: the wavelength bands of Llama 3.1. longrope: each
    frequency's own divisors, found by search, for short texts and for long ones (arXiv:2402.13753).
    """

    kind: Literal["linear", "dynamic", "yarn", "llama3", "longrope"]
    factor: float = Field(gt=0)
    original_context: int | None = None                  # None: the model's max_context
    low_freq_factor: float = 1.0                         # llama3
    high_freq_factor: float = 4.0                        # llama3
    beta_fast: float = 32.0                              # yarn
    beta_slow: float = 1.0                               # yarn
    attention_factor: float | None = None                # yarn, longrope; None: from the factor, by their papers
    short_factor: tuple[float, ...] = ()                 # longrope: E/2 divisors up to the original context
    long_factor: tuple[float, ...] = ()                  # longrope: and for longer texts
    truncate: bool = True                                # yarn: whether the band's borders become whole numbers

    @property
    def follows_length(self) -> bool:
        """Whether frequencies depend on how long a text is, so that a longer one turns its first keys differently."""
        return self.kind in ("dynamic", "longrope")


class LlamaConfig(Settings):
    """One Llama or relative. Widths are in numbers of features, contexts in tokens."""

    kind: Literal["llama"] = "llama"
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
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "dynamic" and self.head_dim == 2:
            raise ValueError("dynamic rope_scaling needs head_dim of at least 4: its exponent is E / (E - 2)")
        if scaling is not None and scaling.kind == "longrope":
            for name in ("short_factor", "long_factor"):
                factors = getattr(scaling, name)
                if len(factors) != self.head_dim // 2 or min(factors) <= 0:
                    raise ValueError(f"longrope's {name} needs {self.head_dim // 2} numbers above 0, one for each pair "
                                     f"of features; found {len(factors)}")
        if scaling is not None and scaling.kind == "llama3" and scaling.high_freq_factor <= scaling.low_freq_factor:
            raise ValueError(f"high_freq_factor={scaling.high_freq_factor} must be above "
                             f"low_freq_factor={scaling.low_freq_factor}")
        return self

    def window(self, layer: int) -> int | None:
        """The sliding window of a layer, or None where it sees the whole past."""
        return self.sliding_window if layer >= self.first_sliding_layer else None


class TransformerConfig(Settings):
    """The original Transformer decoder (arXiv:1706.03762), and one switch for each change that Llama made to it.

    order: "paper" keeps a residual around each part; "literal" is the specification's own list of steps: attention,
    feed-forward, then one norm and dropout at the end of the layer, and no residual since it names none.
    """

    kind: Literal["transformer"] = "transformer"
    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)                        # the paper: n_heads; fewer: grouped-query attention
    head_dim: int = Field(gt=0)                          # the paper: dim / n_heads
    hidden_dim: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_context: int = Field(default=2048, gt=0)
    norm_eps: float = 1e-5
    order: Literal["paper", "literal"] = "paper"
    norm_place: Literal["post", "pre"] = "post"          # pre: a last norm follows the layers, as in Llama
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    positions: Literal["sinusoidal", "rope"] = "sinusoidal"  # rope: embeddings are neither scaled nor added to
    feed_forward: Literal["relu", "swiglu"] = "relu"     # swiglu: three matrices and no biases
    dropout: float = Field(default=0.1, ge=0, lt=1)      # of each part's output and of embedding + position
    tie_embeddings: bool = True                          # section 3.4 of the paper

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerConfig":
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads={self.n_heads} must be a multiple of n_kv_heads={self.n_kv_heads}")
        if self.positions == "sinusoidal" and self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even: sinusoidal positions are pairs of a sine and a cosine")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs of features")
        if self.order == "literal" and self.norm_place == "pre":
            raise ValueError("order='literal' has its one norm at the end of the layer: leave norm_place='post'")
        return self

    def window(self, layer: int) -> None:
        """No layer has a sliding window."""

    @property
    def rope_scaling(self) -> None:
        """Positions are never stretched."""


def _kind(value: Any) -> str | None:
    """A table without `kind` is a Llama."""
    if isinstance(value, LlamaConfig | TransformerConfig):
        return value.kind
    return value.get("kind", "llama") if isinstance(value, dict) else None


ModelSettings = Annotated[
    Annotated[LlamaConfig, Tag("llama")] | Annotated[TransformerConfig, Tag("transformer")],
    Discriminator(_kind, custom_error_type="kind",
                  custom_error_message="should be a table whose kind is 'llama' (the default) or 'transformer'")]
