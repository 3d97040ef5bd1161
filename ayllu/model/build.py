"""From settings to a model: `kind` says which; and models of different parts made equal in size."""

from typing import TypeVar

import torch

from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig, ModelSettings, TransformerConfig
from ayllu.model.init import Uninitialised
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer

__all__ = ["CausalModel", "ModelSettings", "build_model", "count_parameters", "match_hidden_dim"]

CausalModel = Llama | Transformer                        # what every loop, loss and sampler takes
C = TypeVar("C", LlamaConfig, TransformerConfig)


def build_model(config: LlamaConfig | TransformerConfig) -> Llama | Transformer:
    """The model on torch's default device, with torch's own initial values: call `initialise` or load weights next."""
    match config:
        case LlamaConfig():
            return Llama(config)
        case TransformerConfig():
            return Transformer(config)


def count_parameters(config: LlamaConfig | TransformerConfig) -> int:
    """Trainable numbers, a tied head counted once; nothing is allocated."""
    with torch.device("meta"), Uninitialised():
        return sum(p.numel() for p in build_model(config).parameters())


def match_hidden_dim(config: C, n_parameters: int, tolerance: float = 0.01) -> C:
    """The same config with the feed-forward width that brings its size nearest to `n_parameters`."""
    one, two = (count_parameters(config.model_copy(update={"hidden_dim": width})) for width in (1, 2))
    per_feature = two - one                              # the size grows by this with each hidden feature
    width = max(1, round((n_parameters - one) / per_feature) + 1)
    matched = config.model_copy(update={"hidden_dim": width})
    size = count_parameters(matched)
    if abs(size - n_parameters) > tolerance * n_parameters:
        raise ConfigError(f"no hidden_dim brings this {config.kind} to {n_parameters:,} parameters: at {width} it has "
                          f"{size:,}; change dim or n_layers")
    return matched
