"""Small models of every kind, with random weights whose logits have a standard deviation of at least 1."""

from pathlib import Path

import torch

from ayllu.checkpoint.save import source_from_model
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.llama import Llama

BASE = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 96, "vocab_size": 128,
        "max_context": 64}
LLAMA3 = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
YARN = RopeScaling(kind="yarn", factor=4.0, original_context=16, attention_factor=1.25)
CONFIGS = {
    "plain": LlamaConfig(**BASE | {"n_kv_heads": 4}),
    "grouped tied": LlamaConfig(**BASE, tie_embeddings=True),
    "llama 3.1": LlamaConfig(**BASE | {"max_context": 131072}, rope_theta=500_000.0, rope_scaling=LLAMA3),
    "linear": LlamaConfig(**BASE, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
    "yarn": LlamaConfig(**BASE, rope_scaling=YARN, norm_eps=1e-6),
    "longrope": LlamaConfig(**BASE, rope_scaling=RopeScaling(
        kind="longrope", factor=2.0, original_context=16, short_factor=(1.0,) * (BASE["head_dim"] // 2),
        long_factor=(1.5,) * (BASE["head_dim"] // 2))),
    "dynamic": LlamaConfig(**BASE, rope_scaling=RopeScaling(kind="dynamic", factor=2.0)),
    "all biases": LlamaConfig(**BASE, qkv_bias=True, out_bias=True, mlp_bias=True),
    "qwen2": LlamaConfig(**BASE, qkv_bias=True, rope_theta=1_000_000.0, norm_eps=1e-6),
    "mistral": LlamaConfig(**BASE, sliding_window=5),
    "wide heads": LlamaConfig(**BASE | {"head_dim": 32}),
    "odd": LlamaConfig(**BASE | {"dim": 36, "head_dim": 10, "n_heads": 3, "n_kv_heads": 1, "hidden_dim": 50}),
}
META = ("plain", "grouped tied", "llama 3.1")            # what Meta's fields can say
LLAMA2C = ("plain", "grouped tied")
GGUF = tuple(name for name in CONFIGS if name not in ("dynamic", "longrope"))


def random_model(config: LlamaConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> Llama:
    """Weights large enough that another theta, layout or epsilon shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    model = Llama(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            draw = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(draw * 0.3 + (0 if name.endswith("bias") else 1))
            else:
                p.copy_(draw * (1 if "embeddings" in name else 1.5 * p.shape[1] ** -0.5))
    return model.to(dtype).eval()


def source(name: str, dtype: torch.dtype = torch.float32, **parts) -> OpenCheckpoint:
    return source_from_model(random_model(CONFIGS[name], dtype), name=name.replace(" ", "-"), **parts)


def assert_same_tensors(a: OpenCheckpoint, b: OpenCheckpoint) -> None:
    """Every tensor bit for bit, names and order included."""
    assert list(a.entries) == list(b.entries)
    for name, tensor in a.tensors():
        other = b.tensor(name)
        assert torch.equal(tensor.to(torch.float64), other.to(torch.float64)), name


def logits(model: torch.nn.Module, length: int = 24, seed: int = 1) -> torch.Tensor:
    vocab = model.config.vocab_size
    ids = torch.randint(0, vocab, (2, length), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        out = model(ids)
    return (out.logits if hasattr(out, "logits") else out).float()


def shared_file(name: str) -> Path:
    """A file of the shared data folder beside the repository."""
    return Path(__file__).resolve().parents[3] / "shared" / "data" / name
