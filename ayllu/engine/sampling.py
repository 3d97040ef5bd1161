"""Choosing the next ids of all rows at once, each with its own settings, seed and step; no loop over rows.

A row has a place in tables of settings as long as it lives. The filters are those of ayllu/model/sample.py, applied to
the rows that use them; its `Sampler`, one row at a time, is the slow twin. What a row draws depends on its logits,
seed, sample number and step alone.

R rows that choose  V vocabulary
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayllu.engine.request import Request
from ayllu.model import sample

NAMES = ("temperature", "top_k", "top_p", "min_p", "typical_p",
         "repetition_penalty", "presence_penalty", "frequency_penalty")
NEUTRAL = np.array((1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0), np.float32)
U64 = np.uint64
ACCEPT, REDRAW = U64(1 << 20), U64(2 << 20)              # added to sample numbers: more numbers for the same step


def uniforms(seeds: np.ndarray, samples: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """`ayllu.model.sample.uniform` for arrays (uint64, uint64, uint64) -> float64."""
    state = _mix(seeds) ^ _mix(samples + U64(1 << 32))
    return (_mix(state + steps) >> U64(11)).astype(np.float64) / (1 << 53)


def _mix(value: np.ndarray) -> np.ndarray:
    z = value * U64(0x9E3779B97F4A7C15) + U64(0x9E3779B97F4A7C15)             # arrays wrap around at 2^64
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))


def _largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    found = logits.float().max(-1)
    return found.values, found.indices


def draw_by_draft(p: Tensor, q: Tensor, u: Sequence[Tensor]) -> Tensor:
    """Ids (R,) distributed as softmax(p), as often as can be the one that is drawn from softmax(q) with u[0].

    That one is taken with probability min(1, p / q), else one is drawn from the positive part of p - q (Leviathan et
    al. 2023, arXiv:2211.17192, algorithm 1). p, q: logits (R, V); u: three times uniform numbers (R,).
    """
    ids = sample.draw(q, u[0])
    p, q = p.softmax(-1), q.softmax(-1)                                       # (R, V)
    p_there, q_there = (x.gather(-1, ids[:, None])[:, 0] for x in (p, q))
    rest = (p - q).clamp(min=0)
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)               # equal ones: nothing is ever refused
    return torch.where(u[1] * q_there < p_there, ids, sample.draw(rest.log(), u[2]))


@dataclass(frozen=True)
class Kernels:
    """What may compute parts of a choice faster (native/pointwise.py, native/draw.py)."""

    largest: Callable[[Tensor], tuple[Tensor, Tensor]]   # (R, V) -> each row's largest number, or NaN; its place
    draw: Callable[[Tensor, np.ndarray, np.ndarray], Tensor]   # (R, V); NAMES[:4] (R, 4); uniform numbers (R,) -> ids


@dataclass(frozen=True)
class Choice:
    """What a step chose, row by row. `is_bad` rows had logits without a largest one; their id means nothing."""

    ids: list[int]
    is_bad: list[bool]
    is_stop: list[bool]
    logprobs: list[float | None]
    tops: list[tuple[tuple[int, float], ...]]


@dataclass(frozen=True)
class _Asked:
    """What some rows have asked for, read from the tables once."""

    places: list[int]
    rows: np.ndarray                                     # the same
    drawing: np.ndarray                                  # which aren't greedy
    draws: bool                                          # whether any
    shapes: bool                                         # whether any has a bias or a penalty
    least: np.ndarray | None                             # tokens before an end id; None: no row has any
    stops: np.ndarray

    def may_shape(self, steps: np.ndarray) -> bool:
        """Whether `shape` would change anything."""
        return self.shapes or (self.least is not None and bool((steps.astype(np.int64) < self.least).any()))


class SamplingTables:
    """The settings of the living rows. Tables as wide as the vocabulary exist only once a row needs them."""

    def __init__(self, vocab_size: int, device: torch.device, kernels: Kernels | None = None) -> None:
        self.vocab_size, self.device, self.kernels = vocab_size, device, kernels
        self._free: list[int] = []
        self._last: _Asked | None = None
        self._n_places = 0
        self.settings = np.empty((0, len(NAMES)), np.float32)
        self.keys = np.empty((0, 3), np.uint64)                               # seed, sample, step
        self.is_greedy = np.empty(0, np.bool_)
        self.min_tokens = np.empty(0, np.int64)
        self.wants_logprobs = np.empty(0, np.int64)                           # -1: none
        self.stops = np.empty((0, 1), np.int64)                               # -1: none
        self.has_bias = np.empty(0, np.bool_)
        self.bias: Tensor | None = None                                       # (places, V)
        self.seen: Tensor | None = None                                       # (places, V), ids of prompt and answer
        self.counts: Tensor | None = None                                     # (places, V), of the answer

    def add(self, request: Request, seed: int, sample_number: int) -> int:
        """A place for a new row."""
        if not self._free:
            self._grow()
        place, p = self._free.pop(), request.params
        self._last = None
        self.settings[place] = [getattr(p, name) for name in NAMES]
        if p.is_greedy:
            self.settings[place, :5] = NEUTRAL[:5]                            # no filter is computed for it
        self.keys[place] = (seed, sample_number, 0)
        self.is_greedy[place], self.min_tokens[place] = p.is_greedy, request.min_tokens
        self.wants_logprobs[place] = -1 if p.logprobs is None else p.logprobs
        self._set_stops(place, sorted(request.stop_ids))
        self._set_bias(place, p.logit_bias)
        if p.repetition_penalty != 1:
            self.seen = self._table(self.seen, torch.bool)
            self.seen[place] = False
            self.seen[place, torch.tensor(request.ids, device=self.device)] = True
        if p.presence_penalty or p.frequency_penalty:
            self.counts = self._table(self.counts, torch.float32)
            self.counts[place] = 0
        return place

    def drop(self, place: int) -> None:
        """The row is over."""
        self._free.append(place)

    def choose(self, logits: Tensor, places: Sequence[int], ahead: Sequence[int] | None = None,
               allowed: tuple[Sequence[int], Tensor] | None = None, draft: Tensor | None = None) -> Choice:
        """The next ids from the model's logits (R, V). `ahead`: the choice is for so many steps later than the row's
        next one; then a row may stand here several times, if it has no penalties. `advance` says what was kept.
        `allowed`: some of the R rows, and the ids (rows, V) that each of them may choose. `draft`: the draft model's
        logits (R, V) in the same places; rows that may guess then draw so that its guesses are mostly right."""
        asked = self._asked(places)
        rows = asked.rows
        steps = self.keys[rows, 2] + (U64(0) if ahead is None else np.asarray(ahead, dtype=U64))
        shaped = self.shape(logits.float(), rows, steps) if asked.may_shape(steps) else logits      # (R, V)
        if allowed is not None:
            index = self._index(np.asarray(allowed[0]))
            shaped = shaped.index_copy(0, index, shaped[index].masked_fill(~allowed[1].to(self.device), -torch.inf))
        values, ids = (self.kernels.largest if self.kernels else _largest)(shaped)
        drawing = asked.drawing
        if draft is not None:
            guided = drawing & (self.settings[rows, 5:] == NEUTRAL[5:]).all(-1)
            guided[list(allowed[0]) if allowed else []] = False
            drawing = drawing & ~guided
            if guided.any():
                ids[torch.from_numpy(guided)] = self._draw(shaped, rows, steps, guided, draft)
        if asked.draws and drawing.any():
            ids[torch.from_numpy(drawing)] = self._draw(shaped, rows, steps, drawing)
        self._remember(ids, rows)
        chosen = ids.tolist()
        is_stop = (asked.stops == np.asarray(chosen)[:, None]).any(-1)
        logprobs, tops = self._details(logits, ids, rows)
        return Choice(chosen, [not math.isfinite(value) for value in values.tolist()], is_stop.tolist(), logprobs, tops)

    def guess(self, logits: Tensor, places: Sequence[int], ahead: Sequence[int]) -> list[int]:
        """What `choose` will mostly choose so many steps ahead, from the draft model's logits (R, V) there."""
        rows = np.asarray(places)
        steps = self.keys[rows, 2] + np.asarray(ahead, dtype=U64)
        shaped = self.shape(logits.float(), rows, steps)
        ids, drawing = shaped.argmax(-1), ~self.is_greedy[rows]
        if drawing.any():
            ids[torch.from_numpy(drawing)] = self._draw(shaped, rows, steps, drawing)
        return ids.tolist()

    def draws(self, places: Sequence[int]) -> bool:
        """Whether any of these rows isn't greedy."""
        return not self.is_greedy[np.asarray(places)].all()

    def advance(self, places: Sequence[int], n_chosen: Sequence[int]) -> None:
        """So many of the chosen ids belong to the rows now."""
        self.keys[np.asarray(places), 2] += np.asarray(n_chosen, dtype=U64)

    def may_guess(self, place: int) -> bool:
        """Whether several steps of this row can be chosen at once: none depends on the ids of another."""
        return bool((self.settings[place, 5:] == NEUTRAL[5:]).all())

    def shape(self, logits: Tensor, rows: np.ndarray, steps: np.ndarray) -> Tensor:
        """Bias, penalties and what min_tokens forbids: what changes greedy choices too."""
        if self.bias is not None and self.has_bias[rows].any():
            logits = logits + self.bias[self._index(rows)]
        for part in ("seen", "counts"):
            logits = self._penalise(logits, rows, part)
        held = steps.astype(np.int64) < self.min_tokens[rows]
        if held.any():
            row, column = np.nonzero(held[:, None] & (self.stops[rows] >= 0))
            logits = logits.clone()
            logits[self._index(row), self._index(self.stops[rows][row, column])] = -torch.inf
        return logits

    def _asked(self, places: Sequence[int]) -> "_Asked":
        """What the rows in these places have asked for; from step to step they are mostly the same."""
        if self._last is None or self._last.places != places:
            rows = np.asarray(places)
            drawing, least = ~self.is_greedy[rows], self.min_tokens[rows]
            shapes = bool(self.has_bias[rows].any() or (self.settings[rows, 5:] != NEUTRAL[5:]).any())
            self._last = _Asked(list(places), rows, drawing, bool(drawing.any()), shapes,
                                least if least.any() else None, self.stops[rows])
        return self._last

    def filter(self, logits: Tensor, rows: np.ndarray) -> Tensor:
        """Temperature and the filters, each for the rows that use it."""
        columns = {name: torch.from_numpy(self.settings[rows, i]).to(self.device) for i, name in enumerate(NAMES[:5])}
        filters: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor]], ...] = (
            ("temperature", lambda x, t: x / t[:, None]),
            ("top_k", lambda x, k: sample.keep_top_k(x, k.long())),
            ("top_p", sample.keep_top_p), ("min_p", sample.keep_min_p), ("typical_p", sample.keep_typical))
        for i, (name, apply) in enumerate(filters):
            uses = self.settings[rows, i] != NEUTRAL[i]
            if uses.all():
                logits = apply(logits, columns[name])
            elif uses.any():
                index = self._index(np.flatnonzero(uses))
                logits = logits.index_copy(0, index, apply(logits[index], columns[name][index]))
        return logits

    def _draw(self, shaped: Tensor, rows: np.ndarray, steps: np.ndarray, drawing: np.ndarray,
              draft: Tensor | None = None) -> Tensor:
        some, steps = rows[drawing], steps[drawing]
        index = torch.from_numpy(drawing)
        logits = shaped if drawing.all() else shaped[index]
        if draft is None and self.kernels and (self.settings[some, 4] == NEUTRAL[4]).all():   # all but typical_p
            u = uniforms(self.keys[some, 0], self.keys[some, 1], steps)
            return self.kernels.draw(logits, self.settings[some, :4], u)
        logits = self.filter(logits.float(), some)
        us = [torch.from_numpy(uniforms(self.keys[some, 0], self.keys[some, 1] + more, steps)).to(self.device)
             for more in ((U64(0),) if draft is None else (U64(0), ACCEPT, REDRAW))]
        if draft is None:
            return sample.draw(logits, us[0])
        return draw_by_draft(logits, self.filter(self.shape(draft[index].float(), some, steps), some), us)

    def _penalise(self, logits: Tensor, rows: np.ndarray, part: str) -> Tensor:
        """Repetition penalty over `seen`, or presence and frequency over `counts`, for the rows that use it."""
        table = self.seen if part == "seen" else self.counts
        if table is None:
            return logits
        first, last = (5, 6) if part == "seen" else (6, 8)
        uses = (self.settings[rows, first:last] != NEUTRAL[first:last]).any(-1)
        if not uses.any():
            return logits
        index, columns = self._index(np.flatnonzero(uses)), self.settings[rows[uses], first:last, None]
        settings = torch.from_numpy(columns).to(self.device).unbind(1)        # each (R, 1)
        penalise = sample.penalise_repetition if part == "seen" else sample.penalise_presence
        return logits.index_copy(0, index, penalise(logits[index], table[self._index(rows[uses])], *settings))

    def _remember(self, ids: Tensor, rows: np.ndarray) -> None:
        if self.seen is None and self.counts is None:
            return
        index = self._index(rows)
        if self.seen is not None:
            self.seen[index, ids] = True
        if self.counts is not None:
            self.counts[index, ids] += 1                                      # a row chooses once in a call

    def _details(self, logits: Tensor, ids: Tensor, rows: np.ndarray) -> tuple[
            list[float | None], list[tuple[tuple[int, float], ...]]]:
        logprobs: list[float | None] = [None] * len(rows)
        tops: list[tuple[tuple[int, float], ...]] = [()] * len(rows)
        wants = self.wants_logprobs[rows]
        if (wants >= 0).any():
            some = np.flatnonzero(wants >= 0)
            index = self._index(some)
            found = sample.top_logprobs(logits[index], ids[index], int(wants.max()))
            for row, logprob, values, likeliest in zip(some.tolist(), *(t.tolist() for t in found), strict=True):
                logprobs[row] = logprob
                tops[row] = tuple(zip(likeliest, values, strict=True))[:wants[row]]
        return logprobs, tops

    def _set_stops(self, place: int, stop_ids: Sequence[int]) -> None:
        width = self.stops.shape[1]
        if len(stop_ids) > width:
            self.stops = np.pad(self.stops, ((0, 0), (0, len(stop_ids) - width)), constant_values=-1)
        self.stops[place] = -1
        self.stops[place, :len(stop_ids)] = stop_ids

    def _set_bias(self, place: int, bias: dict[int, float]) -> None:
        self.has_bias[place] = bool(bias)
        if bias or self.bias is not None:
            self.bias = self._table(self.bias, torch.float32)
            self.bias[place] = 0
            for token, value in bias.items():
                self.bias[place, token] = value

    def _table(self, table: Tensor | None, dtype: torch.dtype) -> Tensor:
        """A table (places, V) that has every place."""
        if table is not None and len(table) == self._n_places:
            return table
        grown = torch.zeros(self._n_places, self.vocab_size, dtype=dtype, device=self.device)
        if table is not None:
            grown[:len(table)] = table
        return grown

    def _grow(self) -> None:
        n, more = self._n_places, max(8, self._n_places)
        self._free += range(n + more - 1, n - 1, -1)
        self._n_places = n + more
        for name in ("settings", "keys", "is_greedy", "min_tokens", "wants_logprobs", "stops", "has_bias"):
            table = getattr(self, name)
            setattr(self, name, np.concatenate((table, np.full_like(table, -1 if name == "stops" else 0,
                                                                    shape=(more, *table.shape[1:])))))
        for name in ("bias", "seen", "counts"):
            wide = getattr(self, name)
            if wide is not None:
                setattr(self, name, self._table(wide, wide.dtype))

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows.astype(np.int64)).to(self.device)
