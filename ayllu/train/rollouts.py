"""Answers drawn by the engine from the model in training, and what they are worth: the batches of GRPO.

The engine reads the parameters that are trained, as they are: nothing is copied, and an update counts at once. Seeds
follow from the run's seed and the step, so that a resume draws the same answers; where several updates learn from the
same answers, a checkpoint between them holds these.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.data.order import Order
from ayllu.data.pair_loader import padded
from ayllu.data.pairs import Answer
from ayllu.data.prompts import Prompt
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request, Token
from ayllu.engine.runner import EagerRunner
from ayllu.model.build import CausalModel
from ayllu.model.params import SamplingParams
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.answer_logps import id_logps
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.grpo_loss import Scored, advantages, check_engine
from ayllu.train.prefer_loss import Tally
from ayllu.train.rewards import Answered, Rewards
from ayllu.train.sft_loss import BaseOf

BUDGET = 1024                                            # tokens that the engine computes in one step


@dataclass(frozen=True)
class Drawn:
    """One answer as the engine gave it, and what came of it."""

    answer: Answer
    engine: np.ndarray                                   # (ids,) log-probabilities
    advantage: float = 0.0
    old: np.ndarray | None = None
    base: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, exact."""
        arrays = {"ids": self.answer.ids, "engine": self.engine, "old": self.old, "base": self.base}
        return {"start": self.answer.start, "advantage": self.advantage,
                **{name: None if array is None else array.tolist() for name, array in arrays.items()}}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Drawn":
        """What `to_dict` gave."""
        engine, old, base = (None if values[name] is None else np.array(values[name], np.float32)
                             for name in ("engine", "old", "base"))
        assert engine is not None
        return Drawn(Answer(np.array(values["ids"], np.int32), values["start"]), engine, values["advantage"], old, base)


@dataclass(frozen=True)
class DrawnBatch:
    """Answers of one step, on this rank."""

    drawn: Sequence[Drawn]

    def __len__(self) -> int:
        return len(self.drawn)

    def split(self, n: int) -> Iterator["DrawnBatch"]:
        """Micro-batches of at most `n` answers."""
        return (DrawnBatch(self.drawn[i:i + n]) for i in range(0, len(self), n))

    def to(self, device: torch.device) -> Scored:
        """The answers as tensors."""
        def side_by_side(name: str) -> Tensor | None:
            if getattr(self.drawn[0], name) is None:
                return None
            return torch.from_numpy(np.concatenate([getattr(one, name) for one in self.drawn])).to(device)

        answers = padded([one.answer for one in self.drawn], [True] * len(self), None, device)
        engine = side_by_side("engine")
        assert engine is not None
        worth = torch.tensor([one.advantage for one in self.drawn], device=device)
        return Scored(answers, worth, engine, side_by_side("old"), side_by_side("base"))


class Answering:
    """The engine over the parameters of a model in training."""

    def __init__(self, model: CausalModel, rows: int, context: int, stops: tuple[int, ...]) -> None:
        self.model, self.stops = model, stops
        pages = rows * (-(-context // 16) + 1)
        settings = EngineSettings(n_pages=pages, token_budget=max(BUDGET, rows + 1), max_rows=rows, max_waiting=1 << 20,
                                  prefix_cache=False)    # it would be that of older weights
        self.engine = Engine(EagerRunner(model), settings)

    def __call__(self, prompts: Sequence[tuple[int, ...]], params: Sequence[SamplingParams],
                 autocast: torch.dtype | None = None) -> list[list[tuple[list[int], list[float], bool]]]:
        """For each prompt its samples: ids, their log-probabilities, and whether it stopped by itself."""
        was_training = self.model.training
        self.model.eval()
        numbers = [self.engine.submit(Request(ids, one, self.stops)) for ids, one in zip(prompts, params, strict=True)]
        found: dict[tuple[int, int], list[Token]] = {}
        device = self.engine.runner.device.type
        while not self.engine.is_idle:
            with torch.autocast(device, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
                for token in self.engine.step():
                    found.setdefault((token.request, token.sample), []).append(token)
        self.model.train(was_training)
        return [[_told(found[number, sample]) for sample in range(one.n)]
                for number, one in zip(numbers, params, strict=True)]


def _told(tokens: list[Token]) -> tuple[list[int], list[float], bool]:
    there = [token for token in tokens if token.id is not None]
    return ([token.id for token in there if token.id is not None], [token.logprob or 0.0 for token in there],
            tokens[-1].finish == "stop")


class Rollouts:
    """Batches of answers; `fit` asks for a step's, and is told what was noted on the way."""

    def __init__(self, config: GrpoConfig, model: CausalModel, prompts: Sequence[Prompt], rewards: Rewards,
                 tokenizer: Tokenizer, stops: tuple[int, ...], tally: Tally, base_of: BaseOf | None) -> None:
        self.config, self.prompts, self.rewards, self.tokenizer = config, prompts, rewards, tokenizer
        self.tally, self.base_of = tally, base_of
        self.answering = Answering(model, config.loop.batch_size // tally.layout.data, config.context, stops)
        self.order = Order([len(prompts)], None, config.seed)
        self.autocast = None if config.loop.precision == "float32" else torch.bfloat16
        self.number = -1                                 # of the rollout at hand
        self.drawn: list[Drawn] = []

    def batch(self, step: int) -> DrawnBatch:
        """The answers of a step: drawn now, or those that an earlier step of the same rollout has drawn."""
        number = step // self.config.updates
        if number != self.number:
            self.drawn, self.number = self._draw(number), number
        return DrawnBatch(self.drawn)

    def row(self) -> dict[str, float]:
        """Means of what was noted."""
        return self.tally.row()

    def observe(self, loss: float) -> None:
        """The answers don't follow the loss."""

    def state(self) -> dict[str, Any]:
        """The rollout at hand, where later steps may learn from it: as one text, whose size may change."""
        kept = self.drawn if self.config.updates > 1 else []
        return {"rollout": json.dumps([self.number if kept else -1, [one.to_dict() for one in kept]])}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.number, kept = json.loads(state["rollout"])
        self.drawn = [Drawn.from_dict(one) for one in kept]

    def _draw(self, number: int) -> list[Drawn]:
        config, layout = self.config, self.tally.layout
        first = number * config.prompts_a_step
        slots = range(first + layout.data_rank, first + config.prompts_a_step, layout.data)
        taken = [self.prompts[self.order.at(slot)[0]] for slot in slots]
        seeds = [int(np.random.SeedSequence((config.seed, slot)).generate_state(1, np.uint64)[0]) for slot in slots]
        params = [SamplingParams(max_tokens=config.max_tokens, n=config.group, seed=seed, logprobs=0) for seed in seeds]
        samples = self.answering([prompt.ids for prompt in taken], params, self.autocast)
        drawn, answered = list[Drawn](), list[Answered]()
        for prompt, group in zip(taken, samples, strict=True):
            for ids, logprobs, stopped in group:
                text = self.tokenizer.decode(ids, skip_special=True)
                answered.append(Answered(prompt, text, tuple(ids)))
                drawn.append(Drawn(Answer(np.array([*prompt.ids, *ids], np.int32), len(prompt.ids)),
                                   np.array(logprobs, np.float32)))
                self.tally.add("stopped", torch.tensor([float(stopped)]))
                self.tally.add("answer_ids", torch.tensor([float(len(ids))]))
        rewards = torch.tensor(self.rewards(answered))
        self.tally.add("reward", rewards)
        self.tally.add("reward_spread", rewards.view(-1, config.group).std(1))
        worths = advantages(rewards, config.group, config.variant).tolist()
        drawn = [Drawn(one.answer, one.engine, value) for one, value in zip(drawn, worths, strict=True)]
        return self._with_logps(drawn)

    def _with_logps(self, drawn: list[Drawn]) -> list[Drawn]:
        """What stays fixed over the updates: log-probabilities of the model as it is now, and of the base."""
        out = []
        model = self.answering.model
        for part in DrawnBatch(drawn).split(int(self.config.loop.micro_batch)):
            scored = part.to(self.answering.engine.runner.device)
            old = base = None
            if self.config.updates > 1:
                old = self._logps(model, scored)
                check_engine(old, scored.engine, self.config, self.tally)
            if self.base_of is not None:
                with self.base_of(model) as other:
                    base = self._logps(other, scored)
            sizes = [one.answer.size for one in part.drawn]
            parts = [[None] * len(sizes) if x is None else [t.cpu().numpy() for t in x.split(sizes)]
                     for x in (old, base)]
            out += [Drawn(one.answer, one.engine, one.advantage, a, b)
                    for one, a, b in zip(part.drawn, *parts, strict=True)]
        return out

    @torch.no_grad()
    def _logps(self, model: CausalModel, scored: Scored) -> Tensor:
        was_training = model.training
        model.eval()
        with self._precision():
            found = id_logps(model, scored.answers).float()
        model.train(was_training)
        return found

    def _precision(self) -> AbstractContextManager[None]:
        device = self.answering.engine.runner.device.type
        return torch.autocast(device, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None)
