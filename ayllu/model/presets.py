"""Published shapes of the Llama family by name, so that `ayllu info` and benchmarks work without weights.

Sources: the papers named in llama.py and the models' own published config files. Meta gives the names in lower case.
"""

import difflib
from typing import Any

from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig, RopeScaling

LLAMA31 = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
LLAMA32 = RopeScaling(kind="llama3", factor=32.0, original_context=8192)


def _shape(dim: int, n_layers: int, n_heads: int, n_kv_heads: int, hidden_dim: int, vocab_size: int = 32_000,
           max_context: int = 4096, **more: Any) -> LlamaConfig:
    more.setdefault("head_dim", dim // n_heads)
    return LlamaConfig(dim=dim, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, hidden_dim=hidden_dim,
                       vocab_size=vocab_size, max_context=max_context, **more)


_LLAMA3: dict[str, Any] = {"vocab_size": 128_256, "max_context": 8192, "rope_theta": 500_000.0}
_LLAMA31 = {**_LLAMA3, "max_context": 131_072, "rope_scaling": LLAMA31}
_LLAMA32 = {**_LLAMA31, "rope_scaling": LLAMA32, "tie_embeddings": True}
_CODE: dict[str, Any] = {"max_context": 16_384, "rope_theta": 1_000_000.0}
_QWEN2: dict[str, Any] = {"qkv_bias": True, "rope_theta": 1_000_000.0, "norm_eps": 1e-6, "max_context": 131_072}
_SMOL: dict[str, Any] = {"vocab_size": 49_152, "max_context": 2048, "tie_embeddings": True}
_STORIES: dict[str, Any] = {"tie_embeddings": True}

PRESETS: dict[str, LlamaConfig] = {
    "llama-7b": _shape(4096, 32, 32, 32, 11_008, max_context=2048, norm_eps=1e-6),
    "llama-13b": _shape(5120, 40, 40, 40, 13_824, max_context=2048, norm_eps=1e-6),
    "llama-30b": _shape(6656, 60, 52, 52, 17_920, max_context=2048, norm_eps=1e-6),
    "llama-65b": _shape(8192, 80, 64, 64, 22_016, max_context=2048),
    "llama2-7b": _shape(4096, 32, 32, 32, 11_008),
    "llama2-13b": _shape(5120, 40, 40, 40, 13_824),
    "llama2-70b": _shape(8192, 80, 64, 8, 28_672),
    "llama3-8b": _shape(4096, 32, 32, 8, 14_336, **_LLAMA3),
    "llama3-70b": _shape(8192, 80, 64, 8, 28_672, **_LLAMA3),
    "llama3.1-8b": _shape(4096, 32, 32, 8, 14_336, **_LLAMA31),
    "llama3.1-70b": _shape(8192, 80, 64, 8, 28_672, **_LLAMA31),
    "llama3.1-405b": _shape(16_384, 126, 128, 8, 53_248, **_LLAMA31),
    "llama3.2-1b": _shape(2048, 16, 32, 8, 8192, **_LLAMA32),
    "llama3.2-3b": _shape(3072, 28, 24, 8, 8192, **_LLAMA32),
    "codellama-7b": _shape(4096, 32, 32, 32, 11_008, vocab_size=32_016, **_CODE),
    "codellama-13b": _shape(5120, 40, 40, 40, 13_824, vocab_size=32_016, **_CODE),
    "codellama-34b": _shape(8192, 48, 64, 8, 22_016, **_CODE),
    "tinyllama-1.1b": _shape(2048, 22, 32, 4, 5632, max_context=2048),
    "mistral-7b": _shape(4096, 32, 32, 8, 14_336, max_context=32_768, sliding_window=4096),
    "qwen2-0.5b": _shape(896, 24, 14, 2, 4864, vocab_size=151_936, tie_embeddings=True, **_QWEN2),
    "qwen2-1.5b": _shape(1536, 28, 12, 2, 8960, vocab_size=151_936, tie_embeddings=True, **_QWEN2),
    "qwen2-7b": _shape(3584, 28, 28, 4, 18_944, vocab_size=152_064, **_QWEN2),
    "smollm-135m": _shape(576, 30, 9, 3, 1536, **_SMOL),
    "smollm-360m": _shape(960, 32, 15, 5, 2560, **_SMOL),
    "smollm-1.7b": _shape(2048, 24, 32, 32, 8192, **_SMOL),
    "yi-6b": _shape(4096, 32, 32, 4, 11_008, vocab_size=64_000, rope_theta=5_000_000.0),
    "yi-34b": _shape(7168, 60, 56, 8, 20_480, vocab_size=64_000, rope_theta=5_000_000.0),
    "stories15m": _shape(288, 6, 6, 6, 768, max_context=256, **_STORIES),
    "stories42m": _shape(512, 8, 8, 8, 1376, max_context=1024, **_STORIES),
    "stories110m": _shape(768, 12, 12, 12, 2048, max_context=1024, **_STORIES),
}


def preset(name: str) -> LlamaConfig:
    """The shape of a published model; capital letters don't matter."""
    if name.lower() in PRESETS:
        return PRESETS[name.lower()]
    near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(PRESETS)}"
    raise ConfigError(f"no preset is called {name!r}; {hint}")
