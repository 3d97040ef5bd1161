"""Beam search: the `num_beams` likeliest texts are carried on together, and the best finished ones are given back.

Finished beams are ranked by sum of log-probabilities / length ** length_penalty, the end id counted, as transformers
does; so are the rules for when to stop (`early_stopping`: True as soon as num_beams are finished, False when the best
running beam at its present length can't win, None when it can't even at full length).

`BeamSearch` decides from logits, wherever these come from: here the dense cache, in the engine its pages.

B beams  V vocabulary
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ayllu.errors import ConfigError, RequestError
from ayllu.model.request import Finish, Output, check_prompt
from ayllu.model.sample import NOT_FINITE, Sampler, SamplingParams
from ayllu.model.step import Batch, Model, Runner, as_runner

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]                          # of the model, one per id
    tops: tuple[TopLogprobs, ...]                        # the likeliest ids besides, where they are wanted
    total: float                                         # sum of the processed log-probabilities
    row: int                                             # among the beams before this step's choice
    score: float = -math.inf
    finish: Finish = "stop"


class BeamSearch:
    """The search for one prompt's `params.n` best continuations. Temperature and filters don't apply; penalties do."""

    def __init__(self, prompt: Sequence[int], params: SamplingParams, room: int, stop_ids: frozenset[int],
                 vocab_size: int, device: torch.device, min_tokens: int = 0) -> None:
        """`room`: tokens that an answer may have; no id of `stop_ids` is chosen before `min_tokens`."""
        self.params, self.room, self.stop_ids, self.min_tokens = params, room, stop_ids, min_tokens
        self._n_candidates = n_candidates(params, stop_ids, vocab_size)
        self._sampler = Sampler([params], [0], [0], [prompt], vocab_size, device)
        self._stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
        self._running, self._finished, self._length = [_Beam((), (), (), 0.0, 0)], list[_Beam](), 0

    def step(self, logits: Tensor) -> list[tuple[int, int]]:                  # (B, V)
        """From what may follow each beam, those that go on: (place of the one that it continues, its new id), likeliest
        first. The next logits must stand in this order. [] when the search is over."""
        self._length += 1
        width, candidates = self.params.num_beams, self._extend(logits)
        ends = [beam.ids[-1] in self.stop_ids or self._length == self.room for beam in candidates]
        done = [self._finish(beam) for beam, end in zip(candidates[:width], ends, strict=False) if end]
        self._finished = sorted(self._finished + done, key=lambda beam: -beam.score)[:width]
        self._running = [beam for beam, end in zip(candidates, ends, strict=True) if not end][:width]
        if not self._running or not self._may_improve(self._running[0]):
            return []
        self._sampler.select([beam.row for beam in self._running])
        self._sampler.remember(torch.tensor([beam.ids[-1] for beam in self._running], device=logits.device))
        return [(beam.row, beam.ids[-1]) for beam in self._running]

    def outputs(self) -> list[Output]:
        """The best that were finished, best first."""
        wants = self.params.logprobs
        return [Output(list(beam.ids), beam.finish, seed=0, score=beam.score,
                       logprobs=None if wants is None else list(beam.logprobs),
                       top_logprobs=list(beam.tops) if wants else None) for beam in self._finished[:self.params.n]]

    def _extend(self, logits: Tensor) -> list[_Beam]:
        """The likeliest one-token extensions of the running beams, likeliest first."""
        plain = logits.float().log_softmax(-1)                                # (B, V)
        totals = torch.tensor([beam.total for beam in self._running], device=plain.device)
        processed = self._sampler.penalise(plain)
        if self._length <= self.min_tokens:
            processed = processed.index_fill(-1, self._stops, -math.inf)
        values, places = (processed + totals[:, None]).flatten().topk(self._n_candidates)
        if not math.isfinite(float(values[0])):                               # NaN counts as the largest
            raise RequestError(NOT_FINITE)
        rows, ids = places // plain.shape[-1], places % plain.shape[-1]
        steps = zip(rows.tolist(), ids.tolist(), values.tolist(), plain[rows, ids].tolist(), strict=True)
        tops = self._tops(plain)
        return [self._longer(self._running[row], row, token, logprob, total, tops[row])
                for row, token, total, logprob in steps]

    @staticmethod
    def _longer(beam: _Beam, row: int, token: int, logprob: float, total: float, top: TopLogprobs) -> _Beam:
        return _Beam((*beam.ids, token), (*beam.logprobs, logprob), (*beam.tops, top), total, row)

    def _tops(self, plain: Tensor) -> list[TopLogprobs]:
        if not self.params.logprobs:
            return [()] * len(plain)
        top = plain.topk(min(self.params.logprobs, plain.shape[-1]))
        return [tuple(zip(*pair, strict=True)) for pair in zip(top.indices.tolist(), top.values.tolist(), strict=True)]

    def _finish(self, beam: _Beam) -> _Beam:
        finish: Finish = "stop" if beam.ids[-1] in self.stop_ids else "length"
        return replace(beam, score=beam.total / len(beam.ids)**self.params.length_penalty, finish=finish)

    def _may_improve(self, best: _Beam) -> bool:
        """Whether the best running beam could still displace a finished one, by the rule that early_stopping names."""
        params = self.params
        if len(self._finished) < params.num_beams:
            return True
        if params.early_stopping:
            return False
        at_length = self.room if params.early_stopping is None and params.length_penalty > 0 else self._length
        return best.total / at_length**params.length_penalty > self._finished[-1].score


def n_candidates(params: SamplingParams, stop_ids: frozenset[int], vocab_size: int) -> int:
    """Extensions that each step looks at: so many that num_beams go on even if all others end."""
    n = max(2, 1 + len(stop_ids)) * params.num_beams
    if n > vocab_size:
        raise ConfigError(f"num_beams={params.num_beams} needs {n} candidates per step, but the vocabulary has only "
                          f"{vocab_size} ids: lower num_beams")
    return n


@torch.inference_mode()
def beam_search(model: Model | Runner, prompt: Sequence[int], params: SamplingParams,
                eos_ids: Sequence[int] = ()) -> list[Output]:
    """The params.n best continuations of one prompt, best first, over the dense cache."""
    runner = as_runner(model)
    room = check_prompt(prompt, params, runner.config)
    stop_ids = frozenset(params.stop_ids) | (frozenset() if params.ignore_eos else frozenset(eos_ids))
    search = BeamSearch(prompt, params, room, stop_ids, runner.config.vocab_size, runner.device)
    cache = runner.new_cache([0], len(prompt) + min(room, 256))
    ids = torch.tensor([list(prompt)], device=runner.device)
    while kept := search.step(runner.step(Batch(ids, cache))):
        cache.select([row for row, _ in kept])
        ids = torch.tensor([[token] for _, token in kept], device=runner.device)
    return search.outputs()
