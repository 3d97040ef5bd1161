"""config.json of real models, both RoPE spellings, and what is refused by the name of its key."""

import json

import pytest
from checkpoint.models import CONFIGS
from hypothesis import given
from hypothesis import strategies as st

from ayllu.checkpoint.hf import config_from_hf, config_to_hf
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig, RopeScaling

LLAMA2_7B = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096,
             "intermediate_size": 11008, "max_position_embeddings": 4096, "num_attention_heads": 32,
             "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
             "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000, "torch_dtype": "float16"}
LLAMA3_SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 8192, "rope_type": "llama3"}
LLAMA31_8B = LLAMA2_7B | {"intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8,
                          "rope_theta": 500000.0, "vocab_size": 128256, "rope_scaling": LLAMA3_SCALING}
MISTRAL_7B = LLAMA31_8B | {"model_type": "mistral", "sliding_window": 4096, "rope_scaling": None, "rope_theta": 10000.0,
                           "vocab_size": 32000, "max_position_embeddings": 32768}
QWEN2 = {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 131072,
         "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
         "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": True,
         "use_sliding_window": False, "vocab_size": 151936, "hidden_act": "silu"}


def test_llama_2() -> None:
    assert config_from_hf(LLAMA2_7B) == LlamaConfig(
        dim=4096, n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, hidden_dim=11008, vocab_size=32000,
        max_context=4096)


def test_llama_3_1_in_both_spellings() -> None:
    old = config_from_hf(LLAMA31_8B)
    assert old.rope_theta == 500_000
    assert old.n_kv_heads == 8
    assert old.rope_scaling == RopeScaling(kind="llama3", factor=8.0, original_context=8192)
    new = {k: v for k, v in LLAMA31_8B.items() if k not in ("rope_theta", "rope_scaling")}
    assert config_from_hf(new | {"rope_parameters": LLAMA3_SCALING | {"rope_theta": 500000.0}}) == old


def test_mistral_and_qwen2() -> None:
    assert config_from_hf(MISTRAL_7B).sliding_window == 4096
    assert config_from_hf(MISTRAL_7B | {"sliding_window": None}).sliding_window is None
    qwen = config_from_hf(QWEN2)
    assert qwen.qkv_bias
    assert not qwen.out_bias
    assert qwen.tie_embeddings
    assert qwen.sliding_window is None
    sliding = config_from_hf(QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 20})
    assert (sliding.window(19), sliding.window(20)) == (None, 64)
    types = ["full_attention"] * 3 + ["sliding_attention"] * 21
    mixed = QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "layer_types": types}
    assert config_from_hf(mixed).first_sliding_layer == 3
    with pytest.raises(CheckpointError, match="layer_types"):
        config_from_hf(mixed | {"layer_types": types[::-1]})


@pytest.mark.parametrize(("change", "named"), [
    ({"model_type": "mixtral"}, "mixtral"), ({"model_type": "gpt2"}, "gpt2"), ({"num_local_experts": 8},
                                                                               "num_local_experts"),
    ({"hidden_act": "gelu"}, "hidden_act"), ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "short_factor"),
    ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "proportional"),
    ({"rope_scaling": {"rope_type": "linear"}}, "factor"), ({"rope_scaling": {"type": "linear", "factor": 2, "w": 1}},
                                                            "'w'"),
    ({"rope_scaling": [1]}, "tables"), ({"hidden_size": None}, "hidden_size"), ({"hidden_size": "big"}, "hidden_size"),
    ({"hidden_size": -4096}, "hidden_size"), ({"num_hidden_layers": 2**40}, "num_hidden_layers"),
    ({"hidden_size": 4097}, "head_dim"), ({"num_key_value_heads": 5}, "n_kv_heads"), ({"head_dim": 7}, "head_dim"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"), ({"rope_theta": -1.0}, "rope_theta"),
    ({"rms_norm_eps": "small"}, "norm_eps"), ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
])
def test_what_is_not_computed_is_refused_by_name(change: dict, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        config_from_hf(LLAMA2_7B | change, where="there/config.json")


@pytest.mark.parametrize(("change", "named"), [
    ({"out_bias": True}, "out_bias"), ({"qkv_bias": True, "mlp_bias": True}, "mlp_bias"),
    ({"sliding_window": 4, "first_sliding_layer": 1}, "first_sliding_layer"),
    ({"rope_scaling": RopeScaling(kind="dynamic", factor=2.0, original_context=7)}, "original_context"),
])
def test_what_no_model_type_has_is_refused_by_field(change: dict, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        config_to_hf(CONFIGS["plain"].model_copy(update=change))


@pytest.mark.parametrize("name", CONFIGS)
def test_both_ways_through_json(name: str) -> None:
    table = json.loads(json.dumps(config_to_hf(CONFIGS[name])))
    assert config_from_hf(table) == CONFIGS[name]
    assert {"rope_theta", "rope_scaling", "rope_parameters"} <= set(table)       # transformers 4 and 5


@given(heads=st.integers(1, 8), groups=st.integers(1, 4), half=st.integers(1, 64), theta=st.floats(1.5, 1e7),
       eps=st.floats(1e-8, 1e-3), tied=st.booleans(), dropout=st.sampled_from([0.0, 0.1]))
def test_both_ways_for_any_shape(heads: int, groups: int, half: int, theta: float, eps: float, tied: bool,
                                 dropout: float) -> None:
    config = LlamaConfig(dim=24, n_layers=3, n_heads=heads * groups, n_kv_heads=heads, head_dim=2 * half, hidden_dim=10,
                         vocab_size=9, norm_eps=eps, rope_theta=theta, tie_embeddings=tied, residual_dropout=dropout,
                         attention_dropout=dropout, embedding_dropout=dropout)
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config
