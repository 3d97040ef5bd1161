"""What a fine-tuning learns from: the base with its tokenizer and template, and the conversations as ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.data.chat_loader import ChatLoader
from ayllu.data.chats import Gathered, gather, template_of
from ayllu.data.mask_marks import Marks
from ayllu.errors import ConfigError
from ayllu.log import say
from ayllu.model.build import CausalModel
from ayllu.model.config import ModelSettings
from ayllu.model.parallel import Precision
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.distill import DistillConfig, reading_dtype
from ayllu.train.sft_config import SftConfig, Tuning
from ayllu.train.sft_export import Taught


@dataclass(frozen=True)
class Lesson(Taught):
    """All of it."""

    gathered: Gathered

    def loader(self, config: SftConfig, rank: int = 0, world_size: int = 1) -> ChatLoader:
        """Of the training side."""
        return ChatLoader(self.gathered.train, Marks.of(self.tokenizer), config.context, config.loop.batch_size,
                          config.seed, rank, world_size, config.packing.kind)

    def held_out(self, config: SftConfig) -> ChatLoader | None:
        """Of the other side, if there is one."""
        if not len(self.gathered.held_out.starts):
            return None
        return ChatLoader(self.gathered.held_out, Marks.of(self.tokenizer), config.context, 1, kind=config.packing.kind)

    @property
    def compared(self) -> np.ndarray:
        return (self.gathered.held_out if len(self.gathered.held_out.starts) else self.gathered.train).ids


def prepared(config: SftConfig, recipe_folder: Path) -> tuple[SftConfig, Lesson]:
    """The settings with the base's shape and the number of steps, and the data; ConfigError where they don't agree."""
    folder = Path(config.folder or recipe_folder)
    source, tokenizer, template = opened(config, folder, config.data.template)
    shape = source.config
    lesson = Lesson(source, tokenizer, template, gather(config.data, folder, tokenizer, template, config.context))
    if config.distill is not None:
        check_teacher(config.distill, tokenizer, folder)
        config = config.model_copy(update={"distill": with_shape(config.distill, folder, shape, config.context)})
    windows = len(lesson.loader(config).packing)
    steps = config.loop.steps or max(round(config.epochs * windows / config.loop.batch_size), 1)
    say(f"{len(lesson.gathered.train.starts):,} samples in {windows:,} windows: "
        f"{steps * config.loop.batch_size / windows:.2f} epochs in {steps:,} steps")
    return config.with_loop(steps=steps).model_copy(update={"model": shape}), lesson


def opened(config: Tuning, folder: Path, template: str) -> tuple[OpenCheckpoint, Tokenizer, ChatTemplate | None]:
    """The base with its tokenizer and the template that settings name; ConfigError where the recipe doesn't fit it."""
    source = open_base(config, folder)
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{source.path} has no tokenizer: put tokenizer.json or tokenizer.model beside its weights")
    if config.model is not None and config.model != source.config:
        raise ConfigError(f"the recipe's [model] is not the shape of {source.path}: leave it out, and it is read")
    if config.context > source.config.max_context:
        raise ConfigError(f"context={config.context} is longer than the base's, {source.config.max_context}: lower it")
    return source, tokenizer, template_of(template, tokenizer, folder)


def with_shape(distill: DistillConfig, folder: Path, student: ModelSettings, context: int) -> DistillConfig:
    """The settings with the teacher's shape; ConfigError where it doesn't fit the student's."""
    teacher = _open_teacher(distill, folder).config
    if teacher.vocab_size != student.vocab_size:
        raise ConfigError(f"the teacher has {teacher.vocab_size:,} rows of ids and the student "
                          f"{student.vocab_size:,}: both must have as many")
    if context > teacher.max_context:
        raise ConfigError(f"context={context} is longer than the teacher's, {teacher.max_context}: lower it")
    return distill.model_copy(update={"model": teacher})


def _open_teacher(distill: DistillConfig, folder: Path) -> OpenCheckpoint:
    return open_checkpoint(folder / distill.teacher if (folder / distill.teacher).exists() else distill.teacher)


def teacher_of(distill: DistillConfig | None, precision: Precision, tokenizer: Tokenizer, folder: Path,
               device: torch.device) -> CausalModel | None:
    """The teacher's weights in the precision of a model that only reads, where a recipe names one."""
    if distill is None:
        return None
    return build_model(check_teacher(distill, tokenizer, folder), dtype=reading_dtype(precision), device=device)


def check_teacher(distill: DistillConfig, tokenizer: Tokenizer, folder: Path) -> OpenCheckpoint:
    """A teacher; ConfigError where its ids mean other texts than the student's."""
    source = _open_teacher(distill, folder)
    theirs = source.open_tokenizer()
    if theirs is None or theirs.fingerprint != tokenizer.fingerprint:
        found = "none" if theirs is None else f"one of {theirs.vocab_size:,} ids ({theirs.fingerprint[:12]})"
        raise ConfigError(f"the teacher {source.path} must have the student's tokenizer ({tokenizer.vocab_size:,} ids, "
                          f"{tokenizer.fingerprint[:12]}) and has {found}: distributions over other ids can't be "
                          "compared; choose a teacher of the same family, or train on texts that it wrote")
    return source


def open_base(config: Tuning, folder: Path) -> OpenCheckpoint:
    """The base, by a path from the recipe's folder or by a name."""
    return open_checkpoint(folder / config.base if (folder / config.base).exists() else config.base)


def told(config: SftConfig, lesson: Lesson) -> dict[str, Any]:
    """What data.json says: the sources, what became of their rows, and each row that was left out."""
    found = lesson.gathered
    return {"tokens": len(found.train.ids), "learned": found.train.learned, "held_out": len(found.held_out.ids),
            "tokenizer": lesson.tokenizer.fingerprint, "template": config.data.template,
            **found.told(*config.data.sources, *config.data.held_out_sources)}
