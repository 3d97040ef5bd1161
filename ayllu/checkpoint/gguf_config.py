"""The model's shape in GGUF metadata, both ways: architectures llama (also Mistral) and qwen2.

Key names are those of gguf.constants; what they can't say is refused by the field's name.
"""

import math
from typing import Any

import torch
from pydantic import ValidationError

from ayllu.checkpoint.source import Entry
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.llama import rope_frequencies

EXACT = "ayllu.config"                                   # our config as JSON: float32 keys round theta and epsilon


def architecture(config: LlamaConfig) -> str:
    """llama interleaves the rows of q and k and may have every bias; qwen2 does not, its biases are on q, k and v."""
    return "qwen2" if config.qkv_bias and not config.out_bias and not config.mlp_bias else "llama"


def config_to_gguf(config: LlamaConfig) -> dict[str, Any]:
    """Metadata of the model's shape."""
    if config.first_sliding_layer and config.sliding_window:
        raise CheckpointError(f"GGUF has no key for first_sliding_layer={config.first_sliding_layer}: convert to hf")
    arch = architecture(config)
    table: dict[str, Any] = {
        "context_length": config.max_context, "embedding_length": config.dim, "block_count": config.n_layers,
        "feed_forward_length": config.hidden_dim, "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads, "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim, "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta, "rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size}
    if config.sliding_window is not None:
        table["attention.sliding_window"] = config.sliding_window
    table |= _scaling_to_gguf(config)
    return {**{f"{arch}.{key}": value for key, value in table.items()}, EXACT: config.model_dump_json()}


def rope_factors(config: LlamaConfig) -> torch.Tensor | None:
    """rope_freqs.weight (E/2,): what each frequency is divided by. This is how GGUF holds Llama 3.1's scaling."""
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return None
    plain, _ = rope_frequencies(config.model_copy(update={"rope_scaling": None}))
    return plain / rope_frequencies(config)[0]


def config_from_gguf(metadata: dict[str, Any], entries: dict[str, Entry], where: str) -> LlamaConfig:
    """Our config from the standard keys. `entries` have our names; `rope_freqs.weight` keeps its own."""
    arch = metadata.get("general.architecture")
    if arch not in ("llama", "qwen2"):
        raise CheckpointError(f"{where}: general.architecture is {arch!r}; Ayllu computes llama (Llama, Mistral, Yi, "
                              "SmolLM and relatives) and qwen2")

    def get(key: str, default: Any = None) -> Any:
        return metadata.get(f"{arch}.{key}", default)

    if get("expert_count"):
        raise CheckpointError(f"{where}: {arch}.expert_count is {get('expert_count')}: Ayllu computes no mixtures of "
                              "experts")
    try:
        dim, heads = int(get("embedding_length")), get("attention.head_count")
        if isinstance(heads, list) or isinstance(get("attention.head_count_kv"), list):
            raise CheckpointError(f"{where}: the number of heads differs between layers, which Ayllu does not compute")
        head_dim = get("attention.key_length") or dim // heads
        if any((get(key) or head_dim) != head_dim for key in ("rope.dimension_count", "attention.value_length")):
            raise CheckpointError(f"{where}: {arch}.rope.dimension_count or attention.value_length differs from the "
                                  f"head width {head_dim}: Ayllu turns all features of a head")
        base = LlamaConfig(
            dim=dim, n_layers=get("block_count"), n_heads=heads, n_kv_heads=get("attention.head_count_kv", heads),
            head_dim=head_dim, hidden_dim=get("feed_forward_length"),
            vocab_size=entries["tok_embeddings.weight"].shape[0],
            max_context=get("context_length", 2048), norm_eps=decimal(get("attention.layer_norm_rms_epsilon", 1e-5)),
            rope_theta=decimal(get("rope.freq_base", 10_000.0)), sliding_window=get("attention.sliding_window") or None,
            qkv_bias="layers.0.attention.wq.bias" in entries, out_bias="layers.0.attention.wo.bias" in entries,
            mlp_bias="layers.0.feed_forward.w1.bias" in entries, tie_embeddings="output.weight" not in entries)
        scaling = _scaling_from_gguf(get, base, entries, where, _exact_scaling(metadata))
        return base.model_copy(update={"rope_scaling": scaling})
    except KeyError as error:
        raise CheckpointError(f"{where}: tensor {error.args[0]!r} is missing: this file holds no whole "
                              "model") from error
    except (ValidationError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where}: the {arch}.* keys do not describe a model: {error}") from error


def decimal(value: float) -> float:
    """The shortest decimal that float32 rounds to this value: 9.99999974e-06 was written as 1e-05."""
    return float(str(torch.tensor(value, dtype=torch.float32).numpy()))


def _scaling_to_gguf(config: LlamaConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "llama3":      # llama3 is in rope_freqs.weight
        return {}
    if scaling.follows_length:
        raise CheckpointError(f"GGUF has no key for rope_scaling.kind={scaling.kind}: convert to hf, or choose yarn")
    table: dict[str, Any] = {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
    if scaling.kind == "yarn":
        if not scaling.truncate:
            raise CheckpointError("GGUF has no key for rope_scaling.truncate=False: convert to hf")
        table |= {"rope.scaling.original_context_length": scaling.original_context or config.max_context,
                  "rope.scaling.yarn_beta_fast": scaling.beta_fast, "rope.scaling.yarn_beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:         # there it multiplies the paper's factor
            table["rope.scaling.attn_factor"] = scaling.attention_factor / _paper_factor(scaling.factor)
    return table


def _scaling_from_gguf(get: Any, base: LlamaConfig, entries: dict[str, Entry], where: str,
                       exact: RopeScaling | None) -> RopeScaling | None:
    kind, factor = get("rope.scaling.type", "none"), get("rope.scaling.factor") or get("rope.scale_linear") or 1.0
    if "rope_freqs.weight" in entries:
        return _llama3_from(entries["rope_freqs.weight"].read().float(), base, where, exact)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=decimal(factor))
    if kind != "yarn":
        raise CheckpointError(f"{where}: rope.scaling.type {kind!r} is not computed; Ayllu knows linear, yarn and the "
                              "factors of rope_freqs.weight")
    attention = get("rope.scaling.attn_factor")
    return RopeScaling(
        kind="yarn", factor=decimal(factor), original_context=get("rope.scaling.original_context_length"),
        beta_fast=decimal(get("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=decimal(get("rope.scaling.yarn_beta_slow", 1.0)),
        attention_factor=None if attention in (None, 1.0) else decimal(attention) * _paper_factor(decimal(factor)))


def _exact_scaling(metadata: dict[str, Any]) -> RopeScaling | None:
    """What our own key says: one more guess at what is behind rope_freqs.weight."""
    try:
        return LlamaConfig.model_validate_json(metadata.get(EXACT, "{}")).rope_scaling
    except ValidationError:
        return None


def _llama3_from(factors: torch.Tensor, base: LlamaConfig, where: str, exact: RopeScaling | None) -> RopeScaling | None:
    """The scaling that gives these factors, if it is of Llama 3.1's kind, whose bands are the same in all releases."""
    if torch.equal(factors, torch.ones_like(factors)):
        return None
    factor = decimal(factors.max().item())
    guesses = [RopeScaling(kind="llama3", factor=factor, original_context=n) for n in (8192, base.max_context)]
    for scaling in [exact, *guesses] if exact is not None else guesses:
        mine = rope_factors(base.model_copy(update={"rope_scaling": scaling}))
        if mine is not None and mine.shape == factors.shape and torch.allclose(mine, factors, rtol=1e-4):
            return scaling
    raise CheckpointError(f"{where}: rope_freqs.weight holds factors that are not those of Llama 3.1's scaling: Ayllu "
                          "can't compute these positions")


def _paper_factor(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
