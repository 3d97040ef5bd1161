"""Where the kinds of training differ when a run is foreseen and rehearsed without its data."""

import json
from math import prod
from pathlib import Path

import torch

from ayllu.adapters.names import modules
from ayllu.data.shards import Shards
from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.config import ModelSettings
from ayllu.quant.nf4 import bytes_of
from ayllu.train import prefer, pretrain, sft
from ayllu.train.base import dtype_of, frozen_dtype, packable, random_base
from ayllu.train.loop import LossFunction
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_loss import Tally
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.sft_config import SftConfig
from ayllu.train.state import TrainState

TrainConfig = PretrainConfig | SftConfig | PreferConfig


def shape_of(config: TrainConfig) -> ModelSettings:
    """The model's shape; a base that was never opened has none."""
    if config.model is None:
        raise ConfigError(f"the shape of {config.name}'s base isn't known yet: call ayllu.train.lesson.prepared first, "
                          "or give the recipe a [model]")
    return config.model


def empty_state(config: TrainConfig, device: torch.device) -> TrainState:
    """The run's state before its first step, without its data, and with first values in place of a checkpoint's."""
    adapt = config.adapt.model_copy(update={"kind": "off"})
    if isinstance(config, PretrainConfig):
        plain = config.model_copy(update={"init_from": None, "adapt": adapt})
        shards = Shards(Path(), {"vocab_size": config.model.vocab_size, "key": ""})
        return pretrain.new_state(plain, shards, Path(), device)
    assert config.model is not None                      # shape_of has said so
    return sft.new_state(config.model_copy(update={"adapt": adapt}), random_base(config, config.model, device))


def loss_of(config: TrainConfig, device: torch.device, state: TrainState) -> LossFunction:
    """The loss that the recipe asks for."""
    if isinstance(config, PretrainConfig):
        return pretrain.training_loss(config, device)
    if isinstance(config, PreferConfig):
        return prefer.training_loss(config, device, Tally())
    teacher = None
    if config.distill is not None and config.distill.model is not None:
        plain = config.model_copy(update={"lora": None, "quant": "none"})
        teacher = random_base(plain, config.distill.model, device, frozen_dtype(config))
    return sft.training_loss(config, device, state.model, teacher)


def looks(config: TrainConfig) -> int:
    """Held-out losses of one evaluation: one for each language, or one over all that is held out."""
    return len({source.language for source in config.data.sources}) if isinstance(config, PretrainConfig) else 1


def least_bytes(config: TrainConfig) -> float:
    """Weights, and for what is trained of them a gradient and one moment, all in float32 but a frozen base."""
    shape = shape_of(config)
    if isinstance(config, PretrainConfig) or config.lora is None:
        return 12 * n_parameters(shape)
    assert config.model is not None
    widths = modules(config.model)
    trained = sum(config.lora.rank(name) * sum(widths[name]) for name in config.lora.targets(config.model))
    packed = sum(map(prod, packable(config.model).values())) if config.quant == "nf4" else 0
    return dtype_of(config).itemsize * (n_parameters(shape) - packed) + bytes_of(packed) + 12 * trained


def read_settings(text: str) -> TrainConfig:
    """What `model_dump_json` gave."""
    method = json.loads(text).get("method")
    kind = SftConfig if method == "sft" else PreferConfig if method else PretrainConfig
    return kind.model_validate_json(text)
