"""How likely given continuations are, many pairs at a time: contexts are read once, whatever follows them.

The border between a context and its continuation is a border between ids; subject.py says where it lies in a text.

G contexts  B continuations  T tokens  D width  V vocabulary  N chosen positions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ayllu.errors import ContextTooLong
from ayllu.model.cache import DenseCache, left_padded
from ayllu.model.request import check_ids
from ayllu.model.step import Batch, Runner

Ids = Sequence[int]
Group = tuple[tuple[int, ...], list[int]]                # a context, and the numbers of the pairs that it begins
LOGITS = 512                                             # positions whose logits are held at a time


@dataclass(frozen=True)
class Likelihood:
    """The log-probability (nats) of each id of a continuation, and whether each was the likeliest."""

    logprobs: tuple[float, ...]
    is_greedy: bool
    other: tuple[float, ...] = ()                        # of any of the ids that were asked for, in each id's place

    @property
    def total(self) -> float:
        """Of the whole continuation."""
        return sum(self.logprobs)


@torch.inference_mode()
def likelihoods(runner: Runner, pairs: Sequence[tuple[Ids, Ids]], batch: int = 16,
                other: Sequence[int] = ()) -> list[Likelihood]:
    """One for each (context, continuation); a context has an id at least. `batch`: rows computed at a time."""
    for context, continuation in pairs:
        _check(runner, context, continuation)
    found: list[Likelihood | None] = [None] * len(pairs)
    for groups in _together(runner, pairs, batch):
        for number, one in _read(runner, pairs, groups, batch, other):
            found[number] = one
    return [one for one in found if one is not None]


@torch.inference_mode()
def next_logprobs(runner: Runner, context: Ids, ids: Ids) -> list[float]:
    """The log-probability of each of some ids as the one that comes next."""
    check_ids(context, runner.config)
    cache = runner.new_cache([0], len(context))
    logits = runner.step(Batch(torch.tensor([list(context)], device=runner.device), cache))[0]         # (V,)
    return logits.float().log_softmax(-1)[list(ids)].double().tolist()


def _together(runner: Runner, pairs: Sequence[tuple[Ids, Ids]], batch: int) -> Iterator[list[Group]]:
    """Contexts that are read as one batch: of like lengths, with `batch` continuations together, or one context alone.
    Where a rotation follows the length of a pass, filling would count: each alone."""
    scaling = runner.config.rope_scaling
    alone = scaling is not None and scaling.follows_length
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0]), tuple(pairs[i][0])))
    groups: list[Group] = []
    for context, same in groupby(order, key=lambda i: tuple(pairs[i][0])):
        numbers = list(same)
        if groups and (alone or sum(len(g[1]) for g in groups) + len(numbers) > batch):
            yield groups
            groups = []
        groups.append((context, numbers))
    if groups:
        yield groups


def _read(runner: Runner, pairs: Sequence[tuple[Ids, Ids]], groups: list[Group],
          batch: int, other: Sequence[int]) -> Iterator[tuple[int, Likelihood]]:
    contexts = [context[:-1] for context, _ in groups]                        # the last id is given with what follows
    ids, padding = left_padded(contexts)                                      # (G, T)
    scaling = runner.config.rope_scaling
    size = 1 if scaling is not None and scaling.follows_length else batch
    longest = max(len(pairs[i][1]) for _, numbers in groups for i in numbers)
    cache = runner.new_cache(padding, ids.shape[1] + longest)
    if ids.shape[1]:
        runner.hidden(Batch(ids.to(runner.device), cache))
    rows = [(place, i) for place, (_, numbers) in enumerate(groups) for i in numbers]
    for start in range(0, len(rows), size):              # more than one round: one context, whose rows are all alike
        part = rows[start:start + size]
        cache.select([0 if start else place for place, _ in part])
        yield from zip([i for _, i in part], _follow(runner, cache, [pairs[i] for _, i in part], other), strict=True)
        cache.truncate(ids.shape[1])


def _follow(runner: Runner, cache: DenseCache, pairs: list[tuple[Ids, Ids]], other: Sequence[int]) -> list[Likelihood]:
    """One batch, filled on the right: what stands behind a row's end is never looked at."""
    width = max(len(continuation) for _, continuation in pairs)
    rows = [[context[-1], *continuation[:-1]] for context, continuation in pairs]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=runner.device)
    hidden = runner.hidden(Batch(ids, cache))                                 # (B, T, D)
    inside = torch.cat([hidden[i, :len(row)] for i, row in enumerate(rows)])                 # (N, D)
    targets = torch.tensor([id for _, continuation in pairs for id in continuation], device=runner.device)   # (N,)
    chosen, greedy, others = _gather(runner, inside, targets, other)
    found, at = [], 0
    for row in rows:
        own = slice(at, at + len(row))
        found.append(Likelihood(tuple(chosen[own]), all(greedy[own]), tuple(others[own])))
        at += len(row)
    return found


def _gather(runner: Runner, hidden: Tensor, targets: Tensor,
            other: Sequence[int]) -> tuple[list[float], list[bool], list[float]]:             # (N, D), (N,)
    chosen: list[float] = []
    greedy: list[bool] = []
    others: list[float] = []
    for h, target in zip(hidden.split(LOGITS), targets.split(LOGITS), strict=True):
        logp = runner.logits(h).float().log_softmax(-1)                       # (N, V)
        chosen += logp.gather(-1, target[:, None])[:, 0].double().tolist()
        greedy += (logp.argmax(-1) == target).tolist()
        others += logp[:, list(other)].logsumexp(-1).double().tolist() if other else []
    return chosen, greedy, others


def _check(runner: Runner, context: Ids, continuation: Ids) -> None:
    n, limit = len(context) + len(continuation), runner.config.max_context
    if n - 1 > limit:                                                         # the last id is never read
        raise ContextTooLong(f"context and continuation have {n} tokens, of which the model reads {n - 1}, and its "
                             f"context takes {limit}: shorten the context")
    check_ids(context, runner.config)
    check_ids(continuation, runner.config)
