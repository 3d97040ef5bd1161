"""config.json of Hugging Face and our LlamaConfig, both ways: model types llama, mistral and qwen2.

transformers 4 keeps `rope_theta` and `rope_scaling`, transformers 5 one table `rope_parameters`. Both are read; both
are written, so that either version loads the folder. What we can't compute is refused by the name of its key.
"""

import math
from typing import Any

from pydantic import ValidationError

from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig, RopeScaling

# what a missing key means, which differs between the model types
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096},
}
_ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_NOT_COMPUTED = {
    "num_local_experts": "mixtures of experts", "num_experts": "mixtures of experts",
    "n_routed_experts": "mixtures of experts", "attn_logit_softcapping": "capped attention scores",
    "final_logit_softcapping": "capped logits", "no_rope_layers": "layers without rotary positions",
    "quantization_config": "weights quantised in this way; take the unquantised checkpoint or a GGUF Q8_0 of it",
}
_ROPE_KEYS = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor",
              "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate",
              "partial_rotary_factor", "finetuned", "short_factor", "long_factor"}


def config_from_hf(raw: dict[str, Any], where: str = "config.json") -> LlamaConfig:
    """Our config from the content of a config.json; a CheckpointError names what can't be computed."""
    try:
        return _read(raw, where)
    except ValidationError as error:
        raise CheckpointError(f"{where}: " + "; ".join(_plain(e) for e in error.errors())) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{where}: a value has the wrong type ({error}): fetch the file again") from error


def _read(raw: dict[str, Any], where: str) -> LlamaConfig:
    kind = _model_type(raw, where)
    table = {**_DEFAULTS[kind], **raw}
    _refuse_unknown_mathematics(table, where)
    width, heads = _number(table, "hidden_size", where), _number(table, "num_attention_heads", where)
    head_dim = table.get("head_dim")
    if head_dim is None:
        if width % heads:
            raise CheckpointError(f"{where}: hidden_size={width} does not divide by num_attention_heads={heads}, and "
                                  "head_dim is not given")
        head_dim = width // heads
    kv_heads = table.get("num_key_value_heads")
    theta, scaling = _rope_from_hf(table, where)
    window, first = _window_from_hf(kind, table, where)
    both_biases = kind == "llama" and bool(table.get("attention_bias"))
    return LlamaConfig(
        dim=width, n_layers=_number(table, "num_hidden_layers", where), n_heads=heads,
        n_kv_heads=heads if kv_heads is None else kv_heads, head_dim=head_dim,
        hidden_dim=_number(table, "intermediate_size", where), vocab_size=_number(table, "vocab_size", where),
        max_context=table["max_position_embeddings"], norm_eps=table.get("rms_norm_eps", 1e-6),
        rope_theta=theta, rope_scaling=scaling, qkv_bias=both_biases or kind == "qwen2", out_bias=both_biases,
        mlp_bias=kind == "llama" and bool(table.get("mlp_bias")),
        tie_embeddings=bool(table.get("tie_word_embeddings", False)), sliding_window=window,
        first_sliding_layer=first, attention_dropout=table.get("attention_dropout") or 0.0,
        residual_dropout=table.get("resid_pdrop") or 0.0, embedding_dropout=table.get("embd_pdrop") or 0.0)


def config_to_hf(config: LlamaConfig) -> dict[str, Any]:
    """The content of a config.json that transformers 4 and 5 both load."""
    kind = _type_for(config)
    table: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[kind]], "model_type": kind, "hidden_act": "silu",
        "hidden_size": config.dim, "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "head_dim": config.head_dim, "intermediate_size": config.hidden_dim,
        "vocab_size": config.vocab_size, "max_position_embeddings": config.max_context, "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings, "attention_dropout": config.attention_dropout,
        "initializer_range": 0.02, "use_cache": True, **_rope_to_hf(config)}
    if kind == "llama":
        table |= {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    if kind == "mistral":
        table["sliding_window"] = config.sliding_window
    if kind == "qwen2":
        table |= {"use_sliding_window": config.sliding_window is not None, "sliding_window": config.sliding_window,
                  "max_window_layers": config.first_sliding_layer if config.sliding_window else config.n_layers}
    if config.residual_dropout:
        table["resid_pdrop"] = config.residual_dropout   # not in these model types: kept for our own resume
    if config.embedding_dropout:
        table["embd_pdrop"] = config.embedding_dropout
    return table


def _model_type(raw: dict[str, Any], where: str) -> str:
    kind = raw.get("model_type")
    if kind is None:
        named = raw.get("architectures") or []
        named = named if isinstance(named, list) else []
        kind = next((k for k, name in _ARCHITECTURES.items() if name in named), None)
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise CheckpointError(f"{where}: model_type {kind!r} is not computed by Ayllu, which knows llama, mistral and "
                              "qwen2 (Llama 1-3.2, Code Llama, TinyLlama, SmolLM, Yi and relatives are llama)")
    return kind


def _refuse_unknown_mathematics(table: dict[str, Any], where: str) -> None:
    for key in _REQUIRED:
        if table.get(key) is None:
            raise CheckpointError(f"{where}: {key} is missing: this is not the config of a whole model")
    for key, what in _NOT_COMPUTED.items():
        if table.get(key):
            raise CheckpointError(f"{where}: {key} is set, but Ayllu does not compute {what}")
    if table.get("hidden_act", "silu") not in ("silu", "swish"):
        raise CheckpointError(f"{where}: hidden_act is {table['hidden_act']!r}; Ayllu computes silu (SwiGLU) only")


def _number(table: dict[str, Any], key: str, where: str) -> int:
    value = table[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise CheckpointError(f"{where}: {key} should be a positive whole number, found {value!r}")
    return value


def _window_from_hf(kind: str, table: dict[str, Any], where: str) -> tuple[int | None, int]:
    """(sliding window, first layer that has it); the layers before that one see everything."""
    window = table.get("sliding_window")
    if kind == "llama" or (kind == "qwen2" and not table.get("use_sliding_window")):
        return None, 0                                   # transformers ignores the key there, too
    if kind == "mistral" or window is None:
        return window, 0
    layers = _number(table, "num_hidden_layers", where)
    types = table.get("layer_types")
    if not isinstance(types, list):
        return window, int(table.get("max_window_layers", 28))
    slides = [t == "sliding_attention" for t in types]
    first = slides.index(True) if True in slides else layers
    if len(slides) != layers or not all(slides[first:]):
        raise CheckpointError(f"{where}: layer_types mixes full and sliding attention in an order that Ayllu does not "
                              "compute: full layers must come first, sliding ones after them")
    return window, first


def _rope_from_hf(table: dict[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    new, old = table.get("rope_parameters") or {}, table.get("rope_scaling") or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise CheckpointError(f"{where}: rope_parameters and rope_scaling should be tables")
    rope = {**new, **old}
    unknown = sorted(set(rope) - _ROPE_KEYS)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "linear", "dynamic", "yarn", "llama3", "longrope"):
        raise CheckpointError(f"{where}: rope_type {kind!r} is not computed; Ayllu knows default, linear, dynamic, "
                              "yarn, llama3 and longrope")
    if unknown:
        raise CheckpointError(f"{where}: the RoPE table has the unknown key {unknown[0]!r}, whose meaning for the "
                              "positions Ayllu does not know")
    partial = rope.get("partial_rotary_factor") or table.get("partial_rotary_factor") or 1.0
    if partial != 1.0:
        raise CheckpointError(f"{where}: partial_rotary_factor is {partial}; Ayllu turns all features (1.0) only")
    theta = rope.get("rope_theta") or table.get("rope_theta") or 10_000.0
    if not _is_number(theta) or theta <= 0:
        raise CheckpointError(f"{where}: rope_theta should be a positive number, found {theta!r}")
    if kind == "default":
        return float(theta), None
    return float(theta), _scaling_from_hf(kind, rope, table, where)


def _scaling_from_hf(kind: str, rope: dict[str, Any], table: dict[str, Any], where: str) -> RopeScaling:
    context = table["max_position_embeddings"]
    original = None
    if kind in ("yarn", "llama3", "longrope"):           # the other two stretch from max_position_embeddings
        original = table.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    factor = rope.get("factor")
    if factor is None and kind in ("yarn", "longrope") and original:
        factor = context / original
    if factor is None or not _is_number(factor):
        raise CheckpointError(f"{where}: rope_type {kind!r} needs a number as factor, found {factor!r}")
    fields: dict[str, Any] = {"kind": kind, "factor": float(factor), "original_context": original}
    wanted = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_fast", "beta_slow", "truncate"),
              "longrope": ("short_factor", "long_factor", "attention_factor")}
    fields |= {key: rope[key] for key in wanted.get(kind, ()) if rope.get(key) is not None}
    if kind == "yarn":
        fields["attention_factor"] = _yarn_attention(rope, float(factor))
    return RopeScaling(**fields)


def _yarn_attention(rope: dict[str, Any], factor: float) -> float | None:
    """The factor on cos and sin; DeepSeek's pair mscale / mscale_all_dim is another way to state it."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scale, scale_all = rope.get("mscale"), rope.get("mscale_all_dim")
    if not scale or not scale_all or factor <= 1:
        return None
    return (0.1 * scale * math.log(factor) + 1.0) / (0.1 * scale_all * math.log(factor) + 1.0)


def _rope_to_hf(config: LlamaConfig) -> dict[str, Any]:
    """transformers 4 reads the first two keys; transformers 5 the third, or the first two where they are set."""
    scaling = config.rope_scaling
    if scaling is None:
        new = {"rope_type": "default", "rope_theta": config.rope_theta}
        return {"rope_theta": config.rope_theta, "rope_scaling": None, "rope_parameters": new}
    table: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    original = scaling.original_context or config.max_context
    match scaling.kind:
        case "linear":
            pass
        case "dynamic":
            if original != config.max_context:
                raise CheckpointError(
                    f"rope_scaling.original_context={original} differs from max_context={config.max_context}: Hugging "
                    "Face's dynamic scaling always starts from max_position_embeddings; set them equal before writing")
        case "llama3":
            table |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
                      "original_max_position_embeddings": original}
        case "yarn":
            table |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate,
                      "original_max_position_embeddings": original}
        case "longrope":
            table |= {"short_factor": list(scaling.short_factor), "long_factor": list(scaling.long_factor),
                      "original_max_position_embeddings": original}
    if scaling.attention_factor is not None:
        table["attention_factor"] = scaling.attention_factor
    return {"rope_theta": config.rope_theta, "rope_scaling": table,
            "rope_parameters": {**table, "rope_theta": config.rope_theta}}


def _type_for(config: LlamaConfig) -> str:
    """The Hugging Face model type that computes this; a combination that none of them has is refused by field."""
    if config.qkv_bias and not config.out_bias:
        if config.mlp_bias:
            raise CheckpointError("mlp_bias with qkv_bias but without out_bias: no Hugging Face model type has this")
        return "qwen2"
    if config.out_bias and not config.qkv_bias:
        raise CheckpointError("out_bias without qkv_bias: no Hugging Face model type has this")
    if config.sliding_window is None:
        return "llama"
    if config.first_sliding_layer or config.qkv_bias or config.mlp_bias:
        raise CheckpointError("sliding_window with first_sliding_layer, out_bias or mlp_bias: Hugging Face's mistral "
                              "has none of these, and its llama has no window")
    return "mistral"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(error: Any) -> str:
    return f"{'.'.join(str(p) for p in error['loc']) or 'config'}: {error['msg']} (found {error['input']!r})"
