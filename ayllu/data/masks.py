"""What is hidden from the model and what it must predict: objectives, and mixtures of them that change with time.

A mask is drawn afresh at each visit, from the seed, the document, the epoch and the step alone, so that workers,
ranks and resumes draw the same one. Every objective keeps every id: `tests/oracles/mask_undo.py` goes back.

A *piece* is a document, or a part of one that is longer than a window. Its first id (BOS, or the last id of the part
before) is always given and never learned; an EOS at its end is never hidden. The ids between are its body.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import Moment, Schedule, bounds, value, within
from ayllu.errors import ConfigError, DataError

Mode = Literal["r", "s", "x"]
IGNORED = -100                                           # a label where nothing is learned (see train/losses.py)


@dataclass(frozen=True)
class Example:
    """One masked piece. All arrays have one entry for each of its n places in the window.

    The place i is given `inputs[i]` and predicts `targets[i]`, with `weights[i]` in the loss (0: not learned; the
    target is still the true id). The first `prefix` places see each other both ways, the others causally.
    """

    objective: str                                       # the name in reports: "causal", "spans-x"
    inputs: np.ndarray                                   # (n,) int64
    targets: np.ndarray                                  # (n,) int64
    weights: np.ndarray                                  # (n,) float32
    prefix: int = 0
    shifted: bool = True                                 # targets stand one place ahead of inputs
    note: str | None = None                              # why it is not quite what was asked for: see NOTES

    def __len__(self) -> int:
        return len(self.inputs)


NOTES = {
    "too_short": "a piece too short for its objective was left causal",
    "fewer_spans": "spans were longer than asked: a piece takes at most 99, one for each sentinel but the last",
    "nothing_hidden": "chance hid nothing in a short piece, so it taught nothing",
    "no_room": "a masked piece would not have fitted its window and was left causal",
}


class Causal(Settings):
    """Predict each next id."""

    kind: Literal["causal"] = "causal"
    weight: Schedule = 1.0


class Prefix(Settings):
    """Predict the end of a piece from its beginning, which sees itself both ways (arXiv:1910.10683, section 3.2.1)."""

    kind: Literal["prefix"] = "prefix"
    weight: Schedule = 1.0
    ratio: Schedule | None = None                        # the share to predict; None: every border is equally likely
    mode: Mode | None = None
    attention: Literal["prefix", "causal"] = "prefix"

    @model_validator(mode="after")
    def _checked(self) -> "Prefix":
        if self.ratio is not None:
            within(self.ratio, 0.0, 1.0, "ratio")
        return self


class Spans(Settings):
    """Span corruption (T5, arXiv:1910.10683) laid out for a decoder: holes first, then what stood in them.

    BOS [mode] a <0> d e <1> | <0> b c <1> f g <2> EOS: only what follows the first <0> behind the bar is learned.
    """

    kind: Literal["spans"] = "spans"
    weight: Schedule = 1.0
    ratio: Schedule = 0.15                               # the share of the body that is hidden, at least one id
    mean_span: Schedule = 3.0                            # ids
    mode: Mode | None = None
    attention: Literal["prefix", "causal"] = "causal"    # whether the part with holes sees itself both ways

    @model_validator(mode="after")
    def _checked(self) -> "Spans":
        within(self.ratio, 0.0, 1.0, "ratio")
        within(self.mean_span, 1.0, math.inf, "mean_span")
        return self


class FillIn(Settings):
    """Fill in the middle (arXiv:2207.14255): prefix, suffix, middle (PSM) or suffix first (SPM), read causally.

    PSM: BOS <PRE> p <SUF> s <MID> m <END> EOS. SPM, in the paper's variant that shares its marks with PSM:
    BOS <PRE> <SUF> s <MID> p m <END> EOS. The weight in a mixture is the paper's FIM rate. Two departures: borders
    fall between ids, not characters, since shards hold ids; and <PRE>, <SUF>, <MID> are not learned, for the caller
    gives them, and learned ones would take probability from plain continuation.
    """

    kind: Literal["fim"] = "fim"
    weight: Schedule = 1.0
    spm: Schedule = 0.5                                  # the share with the suffix first

    @model_validator(mode="after")
    def _checked(self) -> "FillIn":
        within(self.spm, 0.0, 1.0, "spm")
        return self


class Tokens(Settings):
    """Random ids are hidden, each on its own, and everything sees everything (BERT's 80/10/10, RoBERTa's fresh draw:
    arXiv:1810.04805, 1907.11692).

    `predicts = "next"` asks for the hidden id at the place before it, so that one head serves this and causal
    prediction (GPT-BERT, arXiv:2410.24159).
    """

    kind: Literal["tokens"] = "tokens"
    weight: Schedule = 1.0
    ratio: Schedule = 0.15                               # of the body
    masked: float = Field(default=0.8, ge=0, le=1)       # of the hidden ids: replaced by the mask
    random: float = Field(default=0.1, ge=0, le=1)       # replaced by any ordinary id; the rest stays as it is
    predicts: Literal["same", "next"] = "same"

    @model_validator(mode="after")
    def _checked(self) -> "Tokens":
        within(self.ratio, 0.0, 1.0, "ratio")
        if self.masked + self.random > 1 + 1e-9:
            raise ValueError(f"masked={self.masked} and random={self.random} are shares of the hidden ids: "
                             "together at most 1")
        return self


Objective = Annotated[Causal | Prefix | Spans | FillIn | Tokens, Field(discriminator="kind")]


class Mixture(Settings):
    """Objectives by weight: each piece draws one of them at each visit."""

    parts: tuple[Objective, ...] = Field(default=(Causal(),), min_length=1)
    smoothing: float = Field(default=0.95, ge=0, lt=1)   # of the training loss that loss-driven schedules follow

    @model_validator(mode="after")
    def _checked(self) -> "Mixture":
        for part in self.parts:
            within(part.weight, 0.0, math.inf, f"the weight of {name(part)}")
        return self


def ul2(weight: float = 1.0) -> tuple[Spans | Prefix, ...]:
    """UL2's seven denoisers with equal weights that sum to `weight` (arXiv:2205.05131, section 3.1)."""
    each = weight / 7
    regular = [Spans(weight=each, ratio=0.15, mean_span=m, mode="r", attention="prefix") for m in (3.0, 8.0)]
    extreme = [Spans(weight=each, ratio=r, mean_span=m, mode="x", attention="prefix")
               for r, m in ((0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0))]
    return (*regular, Prefix(weight=each, ratio=0.25, mode="s"), *extreme)


def name(part: Objective) -> str:
    """What reports call an objective: its kind, and its mode where it has one."""
    mode = part.mode if isinstance(part, Prefix | Spans) else None
    return f"{part.kind}-{mode}" if mode else part.kind


def shares(mixture: Mixture, moment: Moment) -> np.ndarray:
    """(parts,) the probability of each objective at a moment."""
    weights = np.array([value(part.weight, moment) for part in mixture.parts])
    if weights.sum() <= 0:
        raise ConfigError(f"all {len(weights)} weights of the mixture are 0 at step {moment.step}: leave one positive")
    return weights / weights.sum()


def hide(mixture: Mixture, ids: np.ndarray, marks: Marks, moment: Moment, key: tuple[int, ...]) -> Example:
    """Draw an objective for a piece, then its mask. `key` names the visit: seed, document, place, epoch, step."""
    draw = np.random.default_rng(key)
    part = mixture.parts[int(np.searchsorted(shares(mixture, moment).cumsum(), draw.random(), side="right").clip(
        0, len(mixture.parts) - 1))]
    return apply(part, ids, marks, moment, draw)


def apply(part: Objective, ids: np.ndarray, marks: Marks, moment: Moment, draw: np.random.Generator) -> Example:
    """One objective on one piece of at least two ids."""
    ids = np.asarray(ids, dtype=np.int64)
    match part:
        case Causal():
            return causal(ids)
        case Prefix():
            return _prefix(part, ids, marks, moment, draw)
        case Spans():
            return _spans(part, ids, marks, moment, draw)
        case FillIn():
            return _fill_in(part, ids, marks, moment, draw)
        case Tokens():
            return _tokens(part, ids, marks, moment, draw)


def causal(ids: np.ndarray, note: str | None = None) -> Example:
    """Every id but the first is predicted from those before it."""
    return _shifted("causal", np.asarray(ids, dtype=np.int64), np.ones(len(ids)), note=note)


def longest(mixture: Mixture, n: int) -> int:
    """The most places that a piece of n ids can ever take: window room that is surely enough."""
    possible = [part for part in mixture.parts if bounds(part.weight)[1] > 0]
    return max([n - 1, *(_longest(part, n) for part in possible)])


def _longest(part: Objective, n: int) -> int:
    match part:
        case Causal():
            return n - 1
        case Prefix():
            return n - 1 + (part.mode is not None)
        case Spans():
            hidden = max(1, math.floor((n - 1) * bounds(part.ratio)[1]) + 1)
            spans = min(math.floor(hidden / bounds(part.mean_span)[0]) + 1, hidden, MOST_SPANS)
            return n + 2 * spans + (part.mode is not None)
        case FillIn():
            return n + 3
        case Tokens():
            return n if part.predicts == "same" else n - 1


MOST_SPANS = 99                                          # one sentinel of a hundred closes the last span


def _prefix(part: Prefix, ids: np.ndarray, marks: Marks, moment: Moment, draw: np.random.Generator) -> Example:
    n = len(ids) - 1                                     # ids that may be asked for
    if part.ratio is None:
        asked = int(draw.integers(1, n + 1))
    else:
        asked = min(max(_round(n * value(part.ratio, moment), draw), 1), n)
    sequence = np.concatenate([ids[:1], _mode(part.mode, marks), ids[1:]])
    learned = np.arange(len(sequence)) >= len(sequence) - asked
    return _shifted(name(part), sequence, learned, len(sequence) - asked if part.attention == "prefix" else 0)


def _spans(part: Spans, ids: np.ndarray, marks: Marks, moment: Moment, draw: np.random.Generator) -> Example:
    sentinels = np.array(marks.need("sentinels", name(part)))
    head, body, tail = _parts(ids, marks)
    if len(body) < 2:
        return causal(ids, "too_short")
    _refuse(body, sentinels, name(part))
    hidden = min(max(_round(len(body) * value(part.ratio, moment), draw), 1), len(body) - 1)
    wanted = _round(hidden / value(part.mean_span, moment), draw)
    most = min(len(sentinels) - 1, MOST_SPANS)
    n_spans = min(max(wanted, 1), hidden, len(body) - hidden + 1, most)
    holes = _composition(hidden, n_spans, draw)                              # lengths of the spans
    kept = _composition(len(body) - hidden + 2, n_spans + 1, draw)           # and of what stands around them;
    kept[0] -= 1                                                             # a span may begin or end the body
    kept[-1] -= 1
    starts = np.cumsum(kept[:-1]) + np.cumsum(holes) - holes
    given, answer, at = [head, _mode(part.mode, marks)], [], 0
    for number, (start, length) in enumerate(zip(starts, holes, strict=True)):
        given += [body[at:start], sentinels[number:number + 1]]
        answer += [sentinels[number:number + 1], body[start:start + length]]
        at = start + length
    given.append(body[at:])
    n_given = sum(map(len, given)) + 1                                       # and the sentinel that opens the answer
    sequence = np.concatenate([*given, *answer, sentinels[n_spans:n_spans + 1], tail])
    learned = np.arange(len(sequence)) >= n_given
    return _shifted(name(part), sequence, learned, n_given if part.attention == "prefix" else 0,
                    "fewer_spans" if wanted > most else None)


def _fill_in(part: FillIn, ids: np.ndarray, marks: Marks, moment: Moment, draw: np.random.Generator) -> Example:
    pre, suf, mid, end = np.array(marks.need("fim", "fim"))[:, None]
    head, body, tail = _parts(ids, marks)
    if len(body) < 2:
        return causal(ids, "too_short")
    _refuse(body, np.array(marks.fim), "fim")
    a, b = sorted(draw.integers(0, len(body) + 1, 2))
    before, middle, after = body[:a], body[a:b], body[b:]
    if draw.random() < value(part.spm, moment):
        sequence = np.concatenate([head, pre, suf, after, mid, before, middle, end, tail])
    else:
        sequence = np.concatenate([head, pre, before, suf, after, mid, middle, end, tail])
    return _shifted("fim", sequence, ~np.isin(sequence, marks.fim[:3]))


def _tokens(part: Tokens, ids: np.ndarray, marks: Marks, moment: Moment, draw: np.random.Generator) -> Example:
    (mask,) = marks.need("mask", "tokens")
    head, body, tail = _parts(ids, marks)
    if not len(body):
        return causal(ids, "too_short")
    # Every draw is made for every place, so that what is drawn at one place depends on no id at all.
    hidden = draw.random(len(body)) < value(part.ratio, moment)
    fate, other = draw.random(len(body)), draw.choice(marks.ordinary, len(body))
    shown = np.where(fate < part.masked, mask, np.where(fate < part.masked + part.random, other, body))
    inputs = np.concatenate([head, np.where(hidden, shown, body), tail])
    weights = np.concatenate([np.zeros(1), hidden, np.zeros(len(tail))]).astype(np.float32)
    note = None if hidden.any() else "nothing_hidden"
    if part.predicts == "same":
        return Example("tokens", inputs, ids, weights, len(ids), shifted=False, note=note)
    return Example("tokens", inputs[:-1], ids[1:], weights[1:], len(ids) - 1, note=note)


def _shifted(objective: str, sequence: np.ndarray, learned: np.ndarray, prefix: int = 0,
             note: str | None = None) -> Example:
    """Each place predicts the next id of `sequence` (n + 1,); the first id is given."""
    prefix = min(prefix, len(sequence) - 1)
    return Example(objective, sequence[:-1], sequence[1:], learned[1:].astype(np.float32), prefix, note=note)


def _parts(ids: np.ndarray, marks: Marks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first id, body, EOS or nothing)."""
    end = len(ids) - (len(ids) > 1 and ids[-1] == marks.eos)
    return ids[:1], ids[1:end], ids[end:]


def _mode(mode: Mode | None, marks: Marks) -> np.ndarray:
    return np.array([marks.mode(mode)] if mode else [], dtype=np.int64)


def _refuse(body: np.ndarray, reserved: np.ndarray, objective: str) -> None:
    found = body[np.isin(body, reserved)]
    if len(found):
        raise DataError(f"a document holds the reserved id {found[0]} that {objective} puts in: nobody could tell "
                        "them apart; prepare the data without this id, or leave this objective out")


def _round(x: float, draw: np.random.Generator) -> int:
    """A neighbouring whole number whose mean is x: rounding to the nearest would bend ratios of short documents."""
    return math.floor(x) + int(draw.random() < x % 1)


def _composition(total: int, parts: int, draw: np.random.Generator) -> np.ndarray:
    """(parts,) positive whole numbers that sum to `total`, each such list equally likely."""
    cuts = np.sort(draw.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def left_causal(example: Example, ids: np.ndarray) -> Example:
    """The same piece without its mask, because its window has no room for it."""
    return example if example.objective == "causal" else replace(causal(ids), note="no_room")
