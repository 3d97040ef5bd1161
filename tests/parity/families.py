"""The config.json of each family, and how it is made small: head counts stay, widths, layers and contexts shrink."""

# As published on the hub, without the keys that change nothing in the mathematics; `head_dim` only where it is given.
_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
_LLAMA31_ROPE = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 8192, "rope_type": "llama3"}
TRUE_CONFIGS = {
    "llama-1-7b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "vocab_size": 32000},
    "llama-2-7b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32,
        "num_hidden_layers": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "tie_word_embeddings": False, "vocab_size": 32000, "pretraining_tp": 1},
    "llama-2-70b": _LLAMA | {
        "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8,
        "num_hidden_layers": 80, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "tie_word_embeddings": False, "vocab_size": 32000},
    "llama-3-8b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "rope_theta": 500000.0, "attention_bias": False, "tie_word_embeddings": False, "vocab_size": 128256},
    "llama-3.1-8b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": _LLAMA31_ROPE, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "vocab_size": 128256},
    "llama-3.2-1b": _LLAMA | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "num_hidden_layers": 16, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "rope_scaling": _LLAMA31_ROPE | {"factor": 32.0}, "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": True, "vocab_size": 128256},
    "llama-3.2-3b": _LLAMA | {
        "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24, "num_key_value_heads": 8,
        "head_dim": 128, "num_hidden_layers": 28, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "rope_scaling": _LLAMA31_ROPE | {"factor": 32.0}, "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": True, "vocab_size": 128256},
    "code-llama-7b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32,
        "num_hidden_layers": 32, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "rope_theta": 1000000, "tie_word_embeddings": False, "vocab_size": 32016},
    "tinyllama-1.1b": _LLAMA | {
        "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4,
        "num_hidden_layers": 22, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "rope_theta": 10000.0, "attention_bias": False, "tie_word_embeddings": False, "vocab_size": 32000},
    "smollm-135m": _LLAMA | {
        "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
        "num_hidden_layers": 30, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "rope_theta": 10000.0, "attention_bias": False, "tie_word_embeddings": True, "vocab_size": 49152},
    "yi-6b": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 4,
        "num_hidden_layers": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "rope_theta": 5000000.0, "tie_word_embeddings": False, "vocab_size": 64000},
    "mistral-7b-v0.1": {
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False, "vocab_size": 32000},
    "mistral-nemo-12b": {                                # heads x head_dim is not the width
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 5120,
        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "num_hidden_layers": 40, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
        "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 131072},
    "qwen2-0.5b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 896,
        "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 131072,
        "use_sliding_window": False, "max_window_layers": 24, "tie_word_embeddings": True, "vocab_size": 151936},
    "qwen2-7b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 3584,
        "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "num_hidden_layers": 28,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 131072,
        "use_sliding_window": False, "max_window_layers": 28, "tie_word_embeddings": False, "vocab_size": 152064},
}
N_LAYERS, VOCAB, CONTEXT_DIVISOR = 3, 223, 512


def shrink(config: dict, **changes) -> dict:
    """The same family with 3 layers, heads of 8 features, 223 ids, and contexts divided by 512."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    divisor = head_dim // 8
    small = config | {"hidden_size": config["hidden_size"] // divisor, "num_hidden_layers": N_LAYERS,
                      "intermediate_size": config["intermediate_size"] // (4 * divisor), "vocab_size": VOCAB}
    if "head_dim" in config:
        small["head_dim"] = 8
    for key in ("max_position_embeddings", "sliding_window"):
        if small.get(key):
            small[key] //= CONTEXT_DIVISOR
    if small.get("rope_scaling"):
        rope = small["rope_scaling"]
        small["rope_scaling"] = rope | {
            "original_max_position_embeddings": rope["original_max_position_embeddings"] // CONTEXT_DIVISOR}
    if "max_window_layers" in config:
        small["max_window_layers"] = N_LAYERS
    return small | changes


FAMILIES = {name: shrink(config) for name, config in TRUE_CONFIGS.items()}
FAMILIES["qwen2-7b-sliding"] = shrink(TRUE_CONFIGS["qwen2-7b"], use_sliding_window=True, sliding_window=8,
                                      max_window_layers=1)


def with_scaling(context: int = 16, theta: float = 10_000.0, **rope) -> dict:
    """A small Llama with 16-feature heads, trained for `context` tokens and stretched as `rope` says."""
    return shrink(TRUE_CONFIGS["tinyllama-1.1b"]) | {
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": context, "rope_theta": theta, "rope_scaling": rope}


SCALINGS = {
    "linear": with_scaling(rope_type="linear", factor=4.0),
    "dynamic": with_scaling(rope_type="dynamic", factor=2.0),
    "dynamic-4": with_scaling(rope_type="dynamic", factor=4.0, theta=500_000.0),
    "yarn": with_scaling(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    "yarn-attention-factor": with_scaling(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                          attention_factor=0.8),
    "yarn-betas": with_scaling(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0,
                               beta_slow=0.25),
    "yarn-not-truncated": with_scaling(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                       beta_fast=2.0, beta_slow=0.25, truncate=False),
    "yarn-mscale": with_scaling(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7,
                                mscale_all_dim=1.1),
    "longrope": with_scaling(64, rope_type="longrope", factor=4.0, original_max_position_embeddings=16,
                             short_factor=[1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
                             long_factor=[1.0, 1.2, 1.5, 2.0, 2.7, 3.1, 3.8, 4.0]),
    "longrope-attention-factor": with_scaling(64, rope_type="longrope", original_max_position_embeddings=16,
                                              short_factor=[1.0] * 8, long_factor=[1.0, 1.5] * 4,
                                              attention_factor=0.9),
    "llama3": with_scaling(128, theta=500_000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                           high_freq_factor=4.0, original_max_position_embeddings=16),
    "llama3-32": with_scaling(512, theta=500_000.0, rope_type="llama3", factor=32.0, low_freq_factor=1.0,
                              high_freq_factor=4.0, original_max_position_embeddings=16),
}
