"""Ayllu: the whole life of a Llama model in one readable package.

The public names below are imported when they are first used (PEP 562), so that `import ayllu` brings no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "LLM": "engine.llm", "SamplingParams": "model.params",
    "image_part": "engine.parts", "audio_part": "engine.parts",
    "LlamaForCausalLM": "engine.compat", "LlamaTokenizer": "engine.compat_tokenizer",
    "Llama": "model.llama", "LlamaConfig": "model.config",
    **dict.fromkeys(("AylluError", "ConfigError", "DataError", "CheckpointError", "DamagedCheckpoint", "MissingExtra",
                     "TrainingDiverged", "RequestError", "ContextTooLong", "UnknownAdapter", "NotFound", "BadMedia",
                     "Refused", "NotAllowed", "Overloaded", "EngineFailed", "ClaimLost", "JobCancelled"), "errors"),
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ayllu' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"ayllu.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
