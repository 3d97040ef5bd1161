"""The linear layers that can have an adapter, by our names and by PEFT's.

PEFT names a matrix base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight. No rows are permuted on the way: the
pairs that RoPE turns lie half a head apart inside Ayllu as in Hugging Face's files, whatever format the base came from
(checkpoint/rope_layout.py). A runner that joins wq, wk and wv into one matrix adds each adapter's part to its columns.
"""

from ayllu.model.config import LlamaConfig

PREFIX = "base_model.model."                             # what PEFT puts before the name in the Hugging Face model
THEIRS = {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
          "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
          "feed_forward.w3": "mlp.up_proj"}
PARTS = tuple(THEIRS)                                    # of each layer
OURS = {theirs: ours for ours, theirs in THEIRS.items()}
SHORT = [theirs.rpartition(".")[2] for theirs in OURS]    # q_proj and so on, as configs name them


def hf_module(name: str) -> str:
    """layers.0.attention.wq -> model.layers.0.self_attn.q_proj."""
    _, number, part = name.split(".", 2)
    return f"model.layers.{number}.{THEIRS[part]}"


def our_module(name: str) -> str | None:
    """model.layers.0.self_attn.q_proj -> layers.0.attention.wq; None for what can't have an adapter."""
    parts = name.split(".", 3)
    known = len(parts) == 4 and parts[:2] == ["model", "layers"] and parts[2].isdecimal() and parts[3] in OURS
    return f"layers.{int(parts[2])}.{OURS[parts[3]]}" if known else None


def modules(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every linear layer of the model's blocks, by our names."""
    D, F = config.dim, config.hidden_dim
    Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    widths = {"wq": (D, Q), "wk": (D, KV), "wv": (D, KV), "wo": (Q, D), "w1": (D, F), "w2": (F, D), "w3": (D, F)}
    return {f"layers.{i}.{part}": widths[part.rpartition(".")[2]] for i in range(config.n_layers) for part in PARTS}
