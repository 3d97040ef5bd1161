"""A linear layer over a text's grams beside a model's head: rare words by their letters, beside what a text means.

Wide and deep (arXiv:1606.07792), one after the other. The wide one is logistic regression, which has one best answer;
then two numbers weigh both and N correct what is said too rarely or too often, all fitted on rows that neither has
learned from (bias-corrected temperature scaling, arXiv:1901.06852):
    logits = deep_share * deep + wide_share * wide + correction
Where it helps on these rows, a gram first counts by what it tells of the labels (Wang and Manning 2012, NB-SVM).

n rows  F grams  N outputs
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.checkpoint.safefile import read_safetensors, write_safetensors
from ayllu.data.grams import CUT, PLAIN, Sparse, Vocabulary, form_of
from ayllu.data.units import chinese_cutter
from ayllu.errors import CheckpointError

FILE = "grams.safetensors"
STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0)                # of the rows against small weights: scikit-learn's C
RELATED = (0.03, 0.1, 0.3, 1.0)                          # how much a row of another source counts beside one of these
STEPS, HISTORY = 60, 5                                   # of L-BFGS
TELLING = (0.3, 0.1)                                     # of the best strength, what is tried with it
FOLDS, ENOUGH = 3, 6000                                  # on so many rows
FAR = 6.0                                                # of the shares' logarithms
SPREAD = 0.5                                             # of the corrections, before any row is seen
Way = tuple[float, float, bool]                          # strength, what a related row counts, with `telling`


@dataclass(frozen=True)
class Wide:
    """The linear layer, and how much both count."""

    vocabulary: Vocabulary
    weight: Tensor                                       # (F, N)
    bias: Tensor                                         # (N,)
    shares: tuple[float, float]                          # of the deep one's logits and of its own

    def logits(self, texts: Sequence[str]) -> Tensor:                         # (n, N)
        """Its own."""
        return self.vocabulary.matrix(texts).times(self.weight) + self.bias

    def beside(self, deep: Sequence[Tensor], texts: Sequence[str]) -> list[Tensor]:       # n of (N,)
        """Both together."""
        if not texts:
            return []
        return list(self.shares[0] * torch.stack(list(deep)) + self.shares[1] * self.logits(texts))

    def write(self, folder: Path) -> None:
        """One file."""
        known = self.vocabulary
        tensors = {"form": torch.tensor([float(known.form)]), "keys": torch.from_numpy(known.keys).double(),
                   "rarity": torch.from_numpy(known.rarity), "weight": self.weight, "bias": self.bias,
                   "shares": torch.tensor(self.shares)}
        rows = [(name, partial(tensors.__getitem__, name), tuple(t.shape)) for name, t in tensors.items()]
        write_safetensors(folder / FILE, rows, lambda name: torch.float64 if name == "keys" else torch.float32)

    @classmethod
    def read(cls, folder: Path, n_outputs: int) -> "Wide":
        """What `write` wrote."""
        file = folder / FILE
        if not file.is_file():
            raise CheckpointError(f"{file} is missing: the head was trained with ngrams=true and needs it")
        found = {name: entry.read().clone() for name, entry in read_safetensors(file).items()}
        form = found.pop("form", torch.ones(1)).flatten().tolist()
        if form not in ([PLAIN], [CUT]):
            raise CheckpointError(f"{file} is of an older or newer Ayllu that weighs grams otherwise (form {form}, "
                                  f"expected {[PLAIN]} or {[CUT]}): train the head again")
        if form == [CUT]:
            chinese_cutter(f"{file}: this head knows Chinese by its words and")
        shapes = {name: tuple(t.shape) for name, t in found.items()}
        width = shapes.get("keys", (0,))[0]
        expected = {"keys": (width,), "rarity": (width,), "weight": (width, n_outputs), "bias": (n_outputs,),
                    "shares": (2,)}
        if shapes != expected:
            raise CheckpointError(f"{file} holds {shapes}, expected {expected}: it belongs to another head")
        keys = found["keys"].long().numpy()
        if (np.diff(keys) <= 0).any() or not all(t.isfinite().all() for t in found.values()):
            raise CheckpointError(f"{file}: its keys must ascend and its numbers be finite, and they don't: it is "
                                  "damaged; copy it again")
        known, (deep, wide) = Vocabulary(keys, found["rarity"].numpy(), int(form[0])), found["shares"].tolist()
        return cls(known, found["weight"], found["bias"], (deep, wide))


def fit_wide(rows: Sparse, width: int, labels: Tensor, kind: str, n_outputs: int, strength: float,
             start: Tensor | None = None, counts: Tensor | None = None, tells: Tensor | None = None) -> Tensor:
    """The weights (F + 1, N), a bias in the last row, with the lowest  strength * sum of losses + sum of squares / 2.

    By L-BFGS from 0 or from `start`. `rows` are (n, F) with F = width; `labels` (n,) numbers, or (n, N) of 0 and 1
    where each label is a yes or no; `counts` (n,) how often each row counts, once by default; `tells` (F,), above 0, by
    what each gram's weights are divided before they are squared, 1 by default.
    """
    each = torch.ones(len(labels)) if counts is None else counts
    if tells is not None:                                # the same as grams that count so much
        rows = Sparse(rows.columns, rows.values * tells[rows.columns], rows.starts)
        scale = torch.cat((tells, torch.ones(1)))[:, None]
        return fit_wide(rows, width, labels, kind, n_outputs, strength, None if start is None else start / scale,
                        counts) * scale
    columns, n, wanted = rows.transposed(width), len(labels), _wanted(labels, kind, n_outputs)
    weights = torch.zeros(width + 1, n_outputs) if start is None else start.clone()
    weights.requires_grad_()
    search = torch.optim.LBFGS([weights], max_iter=STEPS, history_size=HISTORY, line_search_fn="strong_wolfe",
                               tolerance_grad=1e-6, tolerance_change=1e-8)

    def loss() -> float:
        w = weights.detach()
        logits = rows.times(w[:-1]) + w[-1]                                   # (n, N)
        if kind == "multi":
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)
            wrong = logits.sigmoid() - wanted
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
            wrong = logits.softmax(-1) - wanted
        value, wrong = losses @ each, wrong * each[:, None]
        weights.grad = torch.cat((columns.times(wrong) + w[:-1] / strength, wrong.sum(0, keepdim=True))) / n
        return float((value + w[:-1].square().sum() / (2 * strength)) / n)

    search.step(loss)
    return weights.detach()


def _wanted(labels: Tensor, kind: str, n_outputs: int) -> Tensor:             # (n, N) of 0 and 1
    return labels.float() if kind == "multi" else F.one_hot(labels, n_outputs).float()


def telling(rows: Sparse, width: int, labels: Tensor, kind: str, n_outputs: int) -> Tensor:
    """How much each gram tells of the labels, (F,), 1 in the root of the mean square: over all labels the largest
    logarithm of how many times more often, or seldom, it stands in a row with a label than in one without, each row
    with it counted once and one more."""
    wanted, columns = _wanted(labels, kind, n_outputs), rows.transposed(width)
    inside = Sparse(columns.columns, torch.ones_like(columns.values), columns.starts).times(wanted)      # (F, N) rows
    every, n = torch.bincount(rows.columns, minlength=width)[:, None], wanted.sum(0)
    odds = ((inside + 1) / (n + 1)).log() - ((every - inside + 1) / (len(labels) - n + 1)).log()
    most = odds.abs().amax(1).clamp(min=1e-3)
    return most / most.square().mean().sqrt()


def weighed(deep: Tensor, wide: Tensor, labels: Tensor, kind: str) -> tuple[tuple[float, float], Tensor, float]:
    """The shares of both, above 0, and the correction (N,) with the lowest loss on rows (n, N) that neither learned
    from; and that loss. Corrections are thought of as normally distributed, so that few rows move them little."""
    measure: Callable[[Tensor], Tensor] = (
        (lambda x: F.binary_cross_entropy_with_logits(x, labels.double())) if kind == "multi" else
        (lambda x: F.cross_entropy(x, labels)))
    logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    correction = torch.zeros(wide.shape[1], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([logs, correction], max_iter=50, line_search_fn="strong_wolfe")
    each = len(labels) * (wide.shape[1] if kind == "multi" else 1)            # over which `measure` takes the mean

    def mixed() -> Tensor:
        a, b = (FAR * torch.tanh(logs / FAR)).exp()
        return a * deep.double() + b * wide.double() + correction

    def loss() -> Tensor:
        search.zero_grad()
        value = measure(mixed()) + correction.square().sum() / (2 * SPREAD**2 * each)
        value = value + 1e-3 * logs.square().sum()                            # for where every row is right
        value.backward()
        return value

    search.step(loss)
    with torch.no_grad():
        a, b = (FAR * torch.tanh(logs / FAR)).exp().tolist()
        return (a, b), correction.float().clone(), measure(mixed()).item()


def fit_beside(deep: Sequence[Tensor], held: Sequence[str], held_labels: Tensor, texts: Sequence[str], labels: Tensor,
               kind: str, related: tuple[Sequence[str], Tensor] | None = None) -> tuple[Wide, list[Tensor], float]:
    """The wide layer that helps a deep one most; `deep` are that one's logits of the held-out texts, n of (N,)."""
    return Fits(held, held_labels, texts, labels, kind, len(deep[0]), related).beside(deep)


class Fits:
    """The wide layers of some texts, each fitted once: several deep ones may be weighed against them."""

    def __init__(self, held: Sequence[str], held_labels: Tensor, texts: Sequence[str], labels: Tensor, kind: str,
                 n_outputs: int, related: tuple[Sequence[str], Tensor] | None = None) -> None:
        self.held, self.held_labels, self.texts, self.labels = held, held_labels, texts, labels
        self.kind, self.n_outputs = kind, n_outputs
        self.more, self.theirs = related or ((), labels[:0])
        self.form = form_of([*texts, *held])
        self.vocabulary = Vocabulary.of(texts, self.form)    # of related texts what these have, too
        self.rows, self.others = self.vocabulary.matrix([*texts, *self.more]), self.vocabulary.matrix(held)
        self.last: Tensor | None = None                      # weights (F + 1, N) from which the next fit begins
        self.plain: Tensor | None = None                     # the last without related texts and `telling`
        self._tried: dict[Way, Tensor] = {}
        self._whole: dict[Way, tuple[Vocabulary, Tensor]] = {}
        self._cross: dict[Way, Way] = {}

    def beside(self, deep: Sequence[Tensor]) -> tuple[Wide, list[Tensor], float]:
        """That of STRENGTHS with the lowest held-out loss of both together, with or without `telling`, and then of 0
        and RELATED, what the related texts count; then all texts are learned, the held-out ones too. Beside it the
        logits of both of the held-out texts, from before these were learned: what may be calibrated on; and what
        related texts count.
        """
        known, found = torch.stack(list(deep)), dict[Way, tuple[tuple[float, float], Tensor, float]]()

        def best_with(*ways: Way) -> Way:
            found.update({way: weighed(known, self.tried(*way), self.held_labels, self.kind) for way in ways})
            return min(found, key=lambda way: (found[way][2], way))

        way = self.telling_or_not(best_with(*((strength, 0.0, False) for strength in STRENGTHS)))
        found = {way: found.get(way) or weighed(known, self.tried(*way), self.held_labels, self.kind)}
        way = best_with(*((way[0], weight, way[2]) for weight in RELATED if self.more))
        (a, b), correction, _ = found[way]
        vocabulary, weights = self.whole(*way)
        added = correction / b                           # a part of the wide one's bias
        return (Wide(vocabulary, weights[:-1].clone(), weights[-1] + added, (a, b)),
                list(a * known + b * (self.tried(*way) + added)), way[1])

    def tried(self, strength: float, weight: float, tells: bool) -> Tensor:
        """The held-out texts' logits (n, N), which aren't learned."""
        key = strength, weight, tells
        if key not in self._tried:
            goes_on = weight > RELATED[0] or not (weight or tells)            # from the fit before, whoever asks
            found = self._fit(self.rows, len(self.vocabulary), torch.cat((self.labels, self.theirs)), len(self.texts),
                              key, self.last if goes_on else self.plain)
            self._tried[key] = self.others.times(found[:-1]) + found[-1]
            self.last, self.plain = found, self.plain if weight or tells else found
        return self._tried[key]

    def whole(self, strength: float, weight: float, tells: bool) -> tuple[Vocabulary, Tensor]:
        """The weights (F + 1, N) after all texts."""
        key = strength, weight, tells
        if key not in self._whole:
            vocabulary = Vocabulary.of([*self.texts, *self.held], self.form)
            rows = vocabulary.matrix([*self.texts, *self.held, *self.more])
            labels = torch.cat((self.labels, self.held_labels, self.theirs))
            self._whole[key] = vocabulary, self._fit(rows, len(vocabulary), labels, len(labels) - len(self.more), key)
        return self._whole[key]

    def telling_or_not(self, plain: Way) -> Way:
        """This way, or the better one with `telling`: by cross-validation on the texts themselves, which are more than
        those held out and tell small differences apart."""
        n, n_all = min(len(self.texts), ENOUGH), len(self.rows.starts)
        if plain not in self._cross and n >= 2 * FOLDS:
            random = torch.Generator().manual_seed(0)
            taken = torch.randperm(len(self.texts), generator=random) < n
            rows = self.rows.chosen(torch.cat((taken, torch.zeros(n_all - len(taken), dtype=torch.bool))))
            fold, labels, width = torch.randperm(n, generator=random) % FOLDS, self.labels[taken], len(self.vocabulary)
            loss = dict[Way, float]()
            for way in (plain, *((plain[0] * share, 0.0, True) for share in TELLING)):
                unseen = torch.empty(n, self.n_outputs)
                for near in (fold != i for i in range(FOLDS)):
                    weights = self._fit(rows.chosen(near), width, labels[near], int(near.sum()), way)
                    unseen[~near] = rows.chosen(~near).times(weights[:-1]) + weights[-1]
                loss[way] = weighed(torch.zeros_like(unseen), unseen, labels, self.kind)[2]
            self._cross[plain] = min(loss, key=lambda way: loss[way])
        return self._cross.get(plain, plain)

    def _fit(self, rows: Sparse, width: int, labels: Tensor, own: int, way: Way, start: Tensor | None = None) -> Tensor:
        strength, weight, tells = way                    # related rows come after `own` ones
        counts = torch.cat((torch.ones(own), torch.full((len(labels) - own,), weight)))
        first = torch.arange(len(labels)) < own
        scale = telling(rows.chosen(first), width, labels[:own], self.kind, self.n_outputs) if tells else None
        return fit_wide(rows, width, labels, self.kind, self.n_outputs, strength, start, counts, scale)
