"""A small model of random weights that are large: from tame ones, every text would be the same."""

import torch

from ayllu.model.build import CausalModel, build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise


def untamed(config: LlamaConfig | TransformerConfig) -> CausalModel:
    model = build_model(config)
    initialise(model, config.n_layers, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model
