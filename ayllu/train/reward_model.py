"""`ayllu prefer method=reward`: a model that gives an answer a number, from which of two answers is better.

It is the base with a linear layer over its last hidden state. The folder that comes out is that of `ayllu train-head`
with a number as its output; `ayllu grpo --reward model:FOLDER` takes it.

A answers, of pairs those of the better ones first  T tokens
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ayllu import dist
from ayllu.adapters.lora import attach, new_adapter, taken
from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.head_file import ADAPTER, HeadFacts, write_weights
from ayllu.data.pair_loader import PairLoader
from ayllu.data.pairs import Compared
from ayllu.evaluate.intervals import Interval, bootstrap_mean
from ayllu.files import atomic_folder
from ayllu.log import say
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.llama import Llama
from ayllu.model.parallel import Layout
from ayllu.train import course
from ayllu.train.base import base_model
from ayllu.train.course import begun, follow, reached, taken_up, whole_models
from ayllu.train.heads_lesson import name_of
from ayllu.train.loop import LossFunction
from ayllu.train.losses import Loss
from ayllu.train.prefer import PairLesson, told
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_eval import wins
from ayllu.train.prefer_loss import Tally
from ayllu.train.preference_losses import bradley_terry
from ayllu.train.run_folder import Resume
from ayllu.train.state import TrainState

HEAD = HeadConfig(kind="regression", n_outputs=1, pooling="last", attention="causal", dropout=0.0)


@dataclass(frozen=True)
class Whole:
    """Prompts with answers to their last id, filled up on the right."""

    ids: Tensor                                          # (A, T)
    is_token: Tensor                                     # (A, T)


@dataclass(frozen=True)
class ScoreBatch:
    """Pairs of one step, on this rank."""

    rows: Sequence[Compared]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, n: int) -> Iterator["ScoreBatch"]:
        """Micro-batches of at most `n` pairs."""
        return (ScoreBatch(self.rows[i:i + n]) for i in range(0, len(self), n))

    def to(self, device: torch.device) -> Whole:
        """All better answers, and then all worse ones."""
        found = [row.good for row in self.rows] + [row.bad for row in self.rows]
        arrays = [answer.ids for answer in found if answer is not None]
        ids = np.zeros((len(arrays), max(map(len, arrays))), dtype=np.int64)
        for row, array in zip(ids, arrays, strict=True):
            row[:len(array)] = array
        sizes = np.array([len(array) for array in arrays])
        is_token = np.arange(ids.shape[1])[None] < sizes[:, None]
        return Whole(torch.from_numpy(ids).to(device), torch.from_numpy(is_token).to(device))


@dataclass
class ScoreLoader:
    """The pairs of each step."""

    pairs: PairLoader

    def batch(self, step: int) -> ScoreBatch:
        """Those of this rank."""
        return ScoreBatch(self.pairs.batch(step).rows)


def train_reward(config: PreferConfig, lesson: PairLesson, recipe_folder: Path,
                 resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: PreferConfig, lesson: PairLesson, folder: Path, resume: Resume,
           device: torch.device) -> dict[str, Any]:
    run, found = Path(config.out), lesson.gathered
    layout = whole_models(config, lesson.source.config, folder, device, "learning from preferences",
                          partial(told, config, lesson))
    body, base = base_model(config, lesson.source, device)
    model = Classifier(body, HEAD, config.seed).to(device)
    state = new_state(config, model, layout, {"data": found.digest, "base": base, "method": config.method})
    state.follower = tally = Tally(layout)
    loader = ScoreLoader(PairLoader(found.train, config.context, config.loop.batch_size, config.seed, layout.data_rank,
                                    layout.data))
    resumed = taken_up(config, state, resume)

    def look(state: TrainState, most: int | None = None) -> dict[str, Any]:
        rows = found.held_out[:most]
        return judged(scores(model, rows, config, device), rows, config) if rows else {}

    loss = cast(LossFunction, partial(reward_loss, margin=config.margin, tally=tally))
    last = follow(config, state, loader, loss, config.context, resumed, device,
                  lambda state: ([], look(state, config.eval_rows)), look)
    with state.averaged():
        made = dist.from_first(_write(config, lesson, model, base, last, run) if dist.is_main() else {})
    done = reached(state, last, run=str(run), **made)
    return {"rows" if key == "tokens" else key: value for key, value in done.items()}      # each counts once


def new_state(config: PreferConfig, model: Classifier, layout: Layout, facts: dict[str, Any]) -> TrainState:
    """The state before the first step; an adapter is put on the model here, and the head is trained beside it."""
    if config.lora is not None:
        assert isinstance(model.body, Llama)
        attach(model.body, new_adapter(model.body, config.lora.own(), config.seed))
    plus = config.lora.plus if config.lora else 1.0
    return course.new_state(config, model, layout, plus, context=config.context, **facts)


def reward_loss(model: Classifier, batch: Whole, margin: float, tally: Tally) -> Loss:
    """The sum over pairs."""
    found = model(batch.ids, batch.is_token)[:, 0]                            # (A,)
    good, bad = found.chunk(2)
    each = bradley_terry(good, bad, margin)
    for name, values in (("score_chosen", good), ("score_rejected", bad), ("margin", good - bad),
                         ("accuracy", (good > bad).float())):
        tally.add(name, values)
    return Loss(each.sum(), torch.tensor(float(len(each)), device=each.device), each.detach())


def scores(model: Classifier, rows: Sequence[Compared], config: PreferConfig, device: torch.device) -> np.ndarray:
    """(rows, 2) of the better answers and of the worse."""
    return scored(model, rows, config, device).cpu().numpy()


@torch.no_grad()
def scored(model: Classifier, rows: Sequence[Compared], config: PreferConfig, device: torch.device) -> Tensor:
    """The same as a tensor."""
    model.eval()
    out = []
    for part in ScoreBatch(rows).split(int(config.loop.micro_batch)):
        batch = part.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.loop.precision != "float32"):
            found = model(batch.ids, batch.is_token)[:, 0]
        out.append(found.float().view(2, -1).T)
    model.train()
    return torch.cat(out)


def judged(found: np.ndarray, rows: Sequence[Compared], config: PreferConfig) -> dict[str, float]:
    """The loss, and how often the better answer has the larger score; beside it, how often it is the longer one."""
    good, bad = torch.from_numpy(found).double().unbind(1)
    loss = bradley_terry(good, bad, config.margin).mean().item()
    sizes = np.array([[answer.size for answer in row.answers] for row in rows])
    right = bootstrap_mean(wins(found[:, 0], found[:, 1]), samples=config.resamples)
    longer = bootstrap_mean(wins(sizes[:, 0], sizes[:, 1]), samples=config.resamples)
    return {"held_out": loss, "held_out_pairs": len(rows), "held_out_margin": float((found[:, 0] - found[:, 1]).mean()),
            **_told("held_out_accuracy", right), **_told("longer_answer_accuracy", longer)}


def _told(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _write(config: PreferConfig, lesson: PairLesson, model: Classifier, base: str, last: dict[str, Any],
           run: Path) -> dict[str, str]:
    """RUN/head, whole or not at all; beside an adapter the base is named."""
    source, tokenizer = lesson.source, lesson.tokenizer
    if lesson.template is not None:
        tokenizer.chat_template = lesson.template.source
    named = None if config.lora is None else name_of(source)
    measured = {key: value for key, value in last.items() if key.startswith(("held_out", "longer"))}
    facts = HeadFacts(head=HEAD, body=model.config, context=config.context, too_long="error", base=named,
                      fingerprint=base if named else None, measured=measured)
    with atomic_folder(run / "head") as folder:
        write_weights(folder, model, facts, source.licence and source.licence.derived(source.path.name))
        tokenizer.save(folder)
        if config.lora is not None:
            assert isinstance(model.body, Llama)
            write_adapter(folder / ADAPTER, taken(model.body, config.lora.own(), base), base_name=named)
    say(f"trained: {run / 'head'} (try: ayllu grpo {config.base} prompts.jsonl --reward model:{run / 'head'})")
    return {"head": str(run / "head")}
