"""Where the kinds of training differ when a run is foreseen and rehearsed without its data."""

import json
from pathlib import Path

import torch

from ayllu.data.shards import Shards
from ayllu.errors import ConfigError
from ayllu.model.config import ModelSettings
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.train import pretrain, sft
from ayllu.train.loop import LossFunction
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.sft import SftConfig
from ayllu.train.state import TrainState

TrainConfig = PretrainConfig | SftConfig


def shape_of(config: TrainConfig) -> ModelSettings:
    """The model's shape; a base that was never opened has none."""
    if config.model is None:
        raise ConfigError(f"the shape of {config.name}'s base isn't known yet: call ayllu.train.sft.prepared first, or "
                          "give the recipe a [model]")
    return config.model


def empty_state(config: TrainConfig, device: torch.device) -> TrainState:
    """The run's state before its first step, without its data, and with first values in place of a checkpoint's."""
    adapt = config.adapt.model_copy(update={"kind": "off"})
    if isinstance(config, PretrainConfig):
        plain = config.model_copy(update={"init_from": None, "adapt": adapt})
        shards = Shards(Path(), {"vocab_size": config.model.vocab_size, "key": ""})
        return pretrain.new_state(plain, shards, Path(), device)
    assert config.model is not None                      # shape_of has said so
    with device:
        model = Llama(config.model)
    initialise(model, config.model.n_layers, config.seed)
    return sft.new_state(config.model_copy(update={"adapt": adapt}), model, None)


def loss_of(config: TrainConfig, device: torch.device, state: TrainState) -> LossFunction:
    """The loss that the recipe asks for."""
    if isinstance(config, PretrainConfig):
        return pretrain.training_loss(config, device)
    return sft.training_loss(config, device, state.model)


def looks(config: TrainConfig) -> int:
    """Held-out losses of one evaluation: one for each language, or one over conversations."""
    return len({source.language for source in config.data.sources}) if isinstance(config, PretrainConfig) else 1


def read_settings(text: str) -> TrainConfig:
    """What `model_dump_json` gave."""
    kind = SftConfig if json.loads(text).get("method") == "sft" else PretrainConfig
    return kind.model_validate_json(text)
