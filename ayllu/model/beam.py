"""Beam search: the `num_beams` likeliest texts are carried on together, and the best finished ones are given back.

Finished beams are ranked by sum of log-probabilities / length ** length_penalty, the end id counted, as transformers
does; so are the rules for when to stop (`early_stopping`: True as soon as num_beams are finished, False when the best
running beam at its present length can't win, None when it can't even at full length).

B beams  V vocabulary
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayllu.errors import ConfigError
from ayllu.model.request import Finish, Output, check_prompt
from ayllu.model.sample import Sampler, SamplingParams
from ayllu.model.step import Batch, Model, Runner, as_runner


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]                          # of the model, one per id
    total: float                                         # sum of the processed log-probabilities
    row: int                                             # of the cache, before this step's choice
    score: float = -math.inf
    finish: Finish = "stop"


@torch.inference_mode()
def beam_search(model: Model | Runner, prompt: Sequence[int], params: SamplingParams,
                eos_ids: Sequence[int] = ()) -> list[Output]:
    """The params.n best continuations of one prompt, best first. Temperature and filters don't apply; penalties do."""
    runner = as_runner(model)
    room, width = check_prompt(prompt, params, runner.config), params.num_beams
    stop_ids = frozenset(params.stop_ids) | (frozenset() if params.ignore_eos else frozenset(eos_ids))
    n_candidates = max(2, 1 + len(stop_ids)) * width     # so that num_beams go on even if all others end
    if n_candidates > runner.config.vocab_size:
        raise ConfigError(f"num_beams={width} needs {n_candidates} candidates per step, but the vocabulary has only "
                          f"{runner.config.vocab_size} ids: lower num_beams")
    cache = runner.new_cache([0], len(prompt) + min(room, 256))
    logits = runner.step(Batch(torch.tensor([list(prompt)], device=runner.device), cache))
    sampler = Sampler([params], [0], [0], [prompt], runner.config.vocab_size, runner.device)
    running, finished = [_Beam((), (), 0.0, 0)], list[_Beam]()
    for length in range(1, room + 1):
        candidates = _extend(running, logits, sampler, n_candidates)
        ends = [beam.ids[-1] in stop_ids or length == room for beam in candidates]
        done = [_finish(beam, params, stop_ids) for beam, end in zip(candidates[:width], ends, strict=False) if end]
        finished = sorted(finished + done, key=lambda beam: -beam.score)[:width]
        running = [beam for beam, end in zip(candidates, ends, strict=True) if not end][:width]
        if not running or not _may_improve(running[0], finished, params, length, room):
            break
        rows = [beam.row for beam in running]
        cache.select(rows)
        sampler.select(rows)
        ids = torch.tensor([beam.ids[-1] for beam in running], device=runner.device)
        sampler.remember(ids)
        logits = runner.step(Batch(ids[:, None], cache))
    return [Output(list(beam.ids), beam.finish, seed=0, score=beam.score,
                   logprobs=None if params.logprobs is None else list(beam.logprobs)) for beam in finished[:params.n]]


def _extend(running: list[_Beam], logits: Tensor, sampler: Sampler, n: int) -> list[_Beam]:
    """The n likeliest one-token extensions of the running beams, likeliest first."""
    plain = logits.float().log_softmax(-1)                                    # (B, V)
    totals = torch.tensor([beam.total for beam in running], device=plain.device)
    summed = sampler.penalise(plain) + totals[:, None]
    values, places = summed.flatten().topk(n)
    rows, ids = places // plain.shape[-1], places % plain.shape[-1]
    steps = zip(rows.tolist(), ids.tolist(), values.tolist(), plain[rows, ids].tolist(), strict=True)
    return [_Beam((*running[row].ids, token), (*running[row].logprobs, logprob), total, row)
            for row, token, total, logprob in steps]


def _finish(beam: _Beam, params: SamplingParams, stop_ids: frozenset[int]) -> _Beam:
    finish: Finish = "stop" if beam.ids[-1] in stop_ids else "length"
    score = beam.total / len(beam.ids)**params.length_penalty
    return _Beam(beam.ids, beam.logprobs, beam.total, beam.row, score, finish)


def _may_improve(best: _Beam, finished: list[_Beam], params: SamplingParams, length: int, room: int) -> bool:
    """Whether the best running beam could still displace a finished one, by the rule that early_stopping names."""
    if len(finished) < params.num_beams:
        return True
    if params.early_stopping:
        return False
    at_length = room if params.early_stopping is None and params.length_penalty > 0 else length
    return best.total / at_length**params.length_penalty > finished[-1].score
