"""Where the kinds of training differ when a run is foreseen and rehearsed without its data."""

import json
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import cast

import torch

from ayllu.adapters.lora import attach, new_adapter
from ayllu.adapters.names import modules
from ayllu.data.label_loader import Texts
from ayllu.data.shards import Shards
from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.build import CausalModel, build_model
from ayllu.model.config import LlamaConfig, ModelSettings
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.parallel import ALONE
from ayllu.quant.nf4 import bytes_of
from ayllu.train import heads, prefer, pretrain, reward_model, sft
from ayllu.train.average import new_average
from ayllu.train.base import dtype_of, packable, random_base, random_reader
from ayllu.train.distill import DistillConfig, reading_dtype
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.grpo_loss import grpo_loss
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.loop import LossFunction
from ayllu.train.optim import build_optimizer
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_loss import Tally
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.recipe import Recipe
from ayllu.train.sft_config import Lora, SftConfig
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss

TrainConfig = PretrainConfig | SftConfig | PreferConfig | GrpoConfig | HeadRecipe
KINDS: dict[str | None, type[TrainConfig]] = {"sft": SftConfig, "grpo": GrpoConfig, "head": HeadRecipe,
                                              None: PretrainConfig}


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
    if isinstance(config, HeadRecipe):
        return _head_state(config, config.model, device)
    base = random_base(config, config.model, device)
    config = config.model_copy(update={"adapt": adapt})
    if isinstance(config, PreferConfig) and config.method == "reward":
        return reward_model.new_state(config, Classifier(base, reward_model.HEAD, config.seed), ALONE, {})
    return sft.new_state(config, base)


def _head_state(config: HeadRecipe, shape: ModelSettings, device: torch.device) -> TrainState:
    """A head with one output: others take next to nothing beside the body."""
    with device:
        body = build_model(shape)
    initialise(body, shape.n_layers, config.seed)
    body.requires_grad_(config.learns == "all")
    if isinstance(body, Llama) and config.learns == "adapter":
        attach(body, new_adapter(body, config.lora.own(), config.seed))
    head = HeadConfig(kind=config.kind, n_outputs=1, pooling=config.pooling, attention=config.attention)
    model = cast(CausalModel, Classifier(body, head, config.seed))
    return TrainState(model, build_optimizer(model, config.optim), facts={},
                      average=new_average(model) if config.loop.ema else None)


def loss_of(config: TrainConfig, device: torch.device, state: TrainState) -> LossFunction:
    """The loss that the recipe asks for."""
    if isinstance(config, PretrainConfig):
        return pretrain.training_loss(config, device, _teacher(config.distill, config, device))
    if isinstance(config, PreferConfig) and config.method == "reward":
        return cast(LossFunction, partial(reward_model.reward_loss, margin=config.margin, tally=Tally()))
    if isinstance(config, PreferConfig):
        return prefer.training_loss(config, device, Tally())
    if isinstance(config, GrpoConfig):
        lenient = config.model_copy(update={"tolerance": 1e9})               # random weights round further apart
        return TraineeLoss(partial(grpo_loss, config=lenient, tally=Tally()), config.loop.precision, False,
                           config.loop.activation_checkpointing)
    if isinstance(config, HeadRecipe):
        plain = config.model_copy(update={"class_weights": "none"})          # which there are no labels for
        return heads.head_loss(plain, Texts([], []), cast(Classifier, state.model), device)
    return sft.training_loss(config, device, state.model, _teacher(config.distill, config, device))


def _teacher(distill: DistillConfig | None, config: Recipe, device: torch.device) -> Llama | None:
    """A teacher with first values."""
    if distill is None or distill.model is None:
        return None
    return random_reader(distill.model, config.seed, device, reading_dtype(config.loop.precision))


def looks(config: TrainConfig) -> int:
    """How often an evaluation does what `look` (worst.py) does: for each language, for each batch of held-out texts or
    prompts, or once over all that is held out."""
    if isinstance(config, HeadRecipe):
        shares = config.data.held_out_share, config.data.test_share
        rows = config.loop.steps * config.loop.batch_size / config.epochs * shares[0] / (1 - sum(shares))
        return ceil(rows / heads.ROWS)
    if isinstance(config, GrpoConfig):
        return ceil(config.eval_prompts / config.prompts_a_step)
    return len({source.language for source in config.data.sources}) if isinstance(config, PretrainConfig) else 1


def adapter_of(config: TrainConfig) -> Lora | None:
    """What is trained beside frozen weights, if anything is."""
    if isinstance(config, HeadRecipe):
        return config.lora if config.learns == "adapter" else None
    return None if isinstance(config, PretrainConfig) else config.lora


def least_bytes(config: TrainConfig) -> float:
    """Weights, and for what is trained of them a gradient and one moment, all in float32 but a frozen base."""
    shape, lora = shape_of(config), adapter_of(config)
    if isinstance(config, HeadRecipe) and config.learns == "head":
        return 4 * n_parameters(shape)
    if lora is None or not isinstance(shape, LlamaConfig):
        return 12 * n_parameters(shape)
    widths = modules(shape)
    trained = sum(lora.rank(name) * sum(widths[name]) for name in lora.targets(shape))
    if isinstance(config, PretrainConfig | HeadRecipe):
        return 4 * n_parameters(shape) + 12 * trained
    packed = sum(map(prod, packable(shape).values())) if config.quant == "nf4" else 0
    return dtype_of(config).itemsize * (n_parameters(shape) - packed) + bytes_of(packed) + 12 * trained


def read_settings(text: str) -> TrainConfig:
    """What `model_dump_json` gave."""
    return KINDS.get(json.loads(text).get("method"), PreferConfig).model_validate_json(text)
