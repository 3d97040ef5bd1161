"""`ayllu prefer`: a model that learns which of two answers is better. The loop and its guarantees are pretraining's."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from ayllu import dist
from ayllu.data.pair_loader import PairLoader, crossed
from ayllu.data.pairs import GatheredPairs, gather_pairs
from ayllu.errors import CheckpointError
from ayllu.files import atomic_path
from ayllu.log import say
from ayllu.model.build import CausalModel
from ayllu.train import sft_export
from ayllu.train.base import base_model
from ayllu.train.compiled import wants_compiler, wants_native
from ayllu.train.course import begun, follow, reached, taken_up, whole_models
from ayllu.train.lesson import opened
from ayllu.train.loop import LossFunction
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_eval import Judged, before_and_after, results, row_logps
from ayllu.train.prefer_loss import Tally, prefer_loss
from ayllu.train.run_folder import Resume
from ayllu.train.sft import answers, new_state
from ayllu.train.sft_export import Taught
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss

REFERENCE = "reference.safetensors"                      # in a run's folder


@dataclass(frozen=True)
class PairLesson(Taught):
    """What a model learns from, before the first weight is read."""

    gathered: GatheredPairs

    @property
    def compared(self) -> np.ndarray:
        return np.concatenate([row.answers[0].ids for row in (self.gathered.held_out or self.gathered.train)[:8]])


def prepared(config: PreferConfig, recipe_folder: Path) -> tuple[PreferConfig, PairLesson]:
    """The settings with the base's shape and the number of steps, and the data; ConfigError where they don't agree."""
    folder = Path(config.folder or recipe_folder)
    source, tokenizer, template = opened(config, folder, config.data.template)
    found = gather_pairs(config.data, folder, tokenizer, template, config.context, config.method != "kto")
    n = len(found.train)
    steps = config.loop.steps or max(round(config.epochs * n / config.loop.batch_size), 1)
    say(f"{n:,} rows to learn from, {len(found.held_out):,} held out: {steps * config.loop.batch_size / n:.2f} epochs "
        f"in {steps:,} steps")
    return (config.with_loop(steps=steps).model_copy(update={"model": source.config}),
            PairLesson(source, tokenizer, template, found))


def prefer(config: PreferConfig, lesson: PairLesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: PreferConfig, lesson: PairLesson, folder: Path, resume: Resume,
           device: torch.device) -> dict[str, Any]:
    run, found = Path(config.out), lesson.gathered
    layout = whole_models(config, lesson.source.config, folder, device, "learning from preferences",
                          partial(told, config, lesson))
    model, base = base_model(config, lesson.source, device)
    known, held_known, digest = references(config, model, base, found, run, device)
    loader = PairLoader(found.train, config.context, config.loop.batch_size, config.seed, layout.data_rank, layout.data,
                        known, config.method == "kto")
    state = new_state(config, model, layout, {"data": found.digest, "base": base, "reference": digest,
                                              "method": config.method})
    state.follower = tally = Tally(layout)
    loss = training_loss(config, device, tally)
    resumed = taken_up(config, state, resume)

    def judged(state: TrainState, most: int | None) -> Judged | None:
        rows = found.held_out[:most]
        return Judged(rows, logps(config, state.model, rows, device), held_known[:len(rows)]) if rows else None

    def look(state: TrainState) -> tuple[list[str], dict[str, Any]]:
        now = judged(state, config.eval_rows)
        return answers(state.model, lesson, config.samples, layout), {} if now is None else results(now, config)

    def last_look(state: TrainState) -> dict[str, Any]:
        now = judged(state, None)
        if now is None:
            return {}
        row = results(now, config)
        return row | before_and_after(Judged(now.rows, held_known, held_known), now, config) if now.pairs else row

    last = follow(config, state, loader, loss, config.context, resumed, device, look, last_look)
    with state.averaged():
        files = dist.from_first(sft_export.write(config, model, base, lesson, run) if dist.is_main() else {})
        done = reached(state, last, run=str(run), **files)
    return {"rows" if key == "tokens" else key: value for key, value in done.items()}      # each counts once


def training_loss(config: PreferConfig, device: torch.device, tally: Tally) -> LossFunction:
    """The loss that the recipe asks for."""
    compiled = wants_compiler(config, device)
    return TraineeLoss(partial(prefer_loss, config=config, tally=tally), config.loop.precision, compiled,
                       config.loop.activation_checkpointing, compiled and wants_native(config, device))


def logps(config: PreferConfig, model: CausalModel, rows: list[Any], device: torch.device,
          others: list[Any] | None = None) -> np.ndarray:
    """(rows, 3), as the run computes. Held-out rows of kto are crossed, too."""
    autocast = None if config.loop.precision == "float32" else torch.bfloat16
    if others is None:
        others = crossed(rows, config.context) if config.method == "kto" and rows else []
    return row_logps(model, rows, others, int(config.loop.micro_batch), device, autocast)


def references(config: PreferConfig, model: CausalModel, base: str, found: GatheredPairs, run: Path,
               device: torch.device) -> tuple[np.ndarray, np.ndarray, str]:
    """The base's log-probabilities of what is learned from and of what is held out, and their checksum. They are
    computed once, before the first step, and kept in the run's folder."""
    path, key = run / REFERENCE, f"{found.digest} {base} {config.loop.precision} {config.method == 'kto'}"
    if dist.is_main() and not path.exists():
        say("computing the base's log-probabilities of all answers")
        train = (logps(config, model, found.train, device) if config.has_reference else
                 np.zeros((len(found.train), 3), np.float32))
        tables = {"train": train, "held_out": logps(config, model, found.held_out, device)}
        with atomic_path(path) as temporary:
            save_file(tables, temporary, {"key": key, "sha256": _digest(tables)})
    dist.from_first(None)                                # the others read what the first has written
    with safe_open(path, "np") as file:
        tables, facts = {name: file.get_tensor(name) for name in ("train", "held_out")}, file.metadata()
    if facts["key"] != key or facts["sha256"] != _digest(tables):
        raise CheckpointError(f"{path} is damaged, or of other data, another base or another precision: set them back, "
                              "or remove the file where the run hasn't begun, and it is computed anew")
    return tables["train"], tables["held_out"], facts["sha256"]


def _digest(tables: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(tables["train"].tobytes() + b"|" + tables["held_out"].tobytes()).hexdigest()[:16]


def told(config: PreferConfig, lesson: PairLesson) -> dict[str, Any]:
    """What data.json says: the sources, what became of their rows, and each row that was left out."""
    found = lesson.gathered
    return {"tokens": sum(len(a.ids) for row in found.train for a in row.answers),
            "learned": sum(a.size for row in found.train for a in row.answers),
            "held_out": sum(len(a.ids) for row in found.held_out for a in row.answers),
            "tokenizer": lesson.tokenizer.fingerprint, "template": config.data.template,
            **found.told(*config.data.sources, *config.data.held_out_sources)}
