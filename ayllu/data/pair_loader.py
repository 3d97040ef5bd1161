"""Batches of preferences: a pure function of the seed and the step, each part as wide as its longest answer.

A answers  T places  N ids of answers in all
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ayllu.data.order import Order
from ayllu.data.pairs import Answer, Compared


@dataclass(frozen=True)
class Padded:
    """Prompts with answers, filled up on the right, where causal attention never looks. Those of a pair lie half the
    answers apart, the better ones first."""

    ids: Tensor                                          # (A, T) int64
    places: Tensor                                       # (N,) of A x T: what predicts an answer's id
    labels: Tensor                                       # (N,) the ids that are predicted there
    owner: Tensor                                        # (N,) whose they are, of A
    sizes: Tensor                                        # (A,) float32, ids of each answer
    is_good: Tensor                                      # (A,) bool
    reference: Tensor                                    # (A,) log-probabilities under the reference; 0 without one
    others: "Padded | None" = None                       # of the whole step: each prompt with another's answer
    shared: dict[str, Tensor] = field(default_factory=dict)  # what the parts of a step compute once for all of them


def padded(answers: Sequence[Answer], is_good: Sequence[bool], reference: Sequence[float] | np.ndarray | None,
           device: torch.device, others: Padded | None = None, shared: dict[str, Tensor] | None = None) -> Padded:
    """The answers as tensors."""
    width = max(len(answer.ids) for answer in answers) - 1
    ids = np.zeros((len(answers), width), dtype=np.int64)
    for row, answer in zip(ids, answers, strict=True):
        row[:len(answer.ids) - 1] = answer.ids[:-1]
    places = np.concatenate([n * width + np.arange(a.start - 1, len(a.ids) - 1) for n, a in enumerate(answers)])
    labels = np.concatenate([a.ids[a.start:] for a in answers]).astype(np.int64)
    sizes = np.array([a.size for a in answers])
    owner = np.repeat(np.arange(len(answers)), sizes)
    known = np.zeros(len(answers)) if reference is None else np.asarray(reference)
    arrays = {"ids": ids, "places": places, "labels": labels, "owner": owner, "sizes": sizes.astype(np.float32),
              "is_good": np.array(is_good), "reference": known.astype(np.float32)}
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return Padded(**tensors, others=others, shared={} if shared is None else shared)


@dataclass(frozen=True)
class PairBatch:
    """Rows of one step, on this rank."""

    rows: Sequence[Compared]
    reference: np.ndarray | None                         # (rows, 3), of the better, the worse and the crossed answer
    crossed: tuple[Answer, ...] = ()                     # of the whole step: each prompt with another row's answer
    crossed_reference: np.ndarray | None = None
    shared: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, n: int) -> Iterator["PairBatch"]:
        """Micro-batches of at most `n` rows, which know what they share."""
        for i in range(0, len(self), n):
            known = None if self.reference is None else self.reference[i:i + n]
            yield PairBatch(self.rows[i:i + n], known, self.crossed, self.crossed_reference, self.shared)

    def to(self, device: torch.device) -> Padded:
        """All better answers, and then all worse ones."""
        found = [(answer, side == 0, n) for side in (0, 1) for n, row in enumerate(self.rows)
                 if (answer := (row.good, row.bad)[side]) is not None]
        known = None if self.reference is None else [self.reference[n, 0 if good else 1] for _, good, n in found]
        others = None
        if self.crossed and "zero" not in self.shared:
            others = padded(self.crossed, [True] * len(self.crossed), self.crossed_reference, device)
        return padded([answer for answer, _, _ in found], [good for _, good, _ in found], known, device, others,
                      self.shared)


@dataclass
class PairLoader:
    """Each row once per epoch, in an order that the seed and the epoch decide. Ranks take turns."""

    rows: Sequence[Compared]
    context: int
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    reference: np.ndarray | None = None                  # (rows, 3), as in PairBatch
    crosses: bool = False                                # give each batch prompts with others' answers, for KTO

    def __post_init__(self) -> None:
        self.crossed = crossed(self.rows, self.context) if self.crosses else []
        self.order = Order([len(self.rows)], None, self.seed)

    def batch(self, step: int) -> PairBatch:
        """The rows of this rank for one step."""
        rows = self.order.of_step(step, self.batch_size, self.rank, self.world_size)
        return self._batch([row for row, _ in rows])

    def in_order(self, n: int) -> Iterator[PairBatch]:
        """All rows once, `n` at a time."""
        for first in range(0, len(self.rows), n):
            yield self._batch(range(first, min(first + n, len(self.rows))))

    def _batch(self, taken: Sequence[int]) -> PairBatch:
        known = None if self.reference is None else self.reference[list(taken)]
        others = tuple(self.crossed[i] for i in taken) if self.crosses else ()
        return PairBatch([self.rows[i] for i in taken], known, others, None if known is None else known[:, 2])


def crossed(rows: Sequence[Compared], context: int) -> list[Answer]:
    """Each row's prompt with the answer of some other row, which says nothing about it (arXiv:2402.01306, section 4.1,
    where the rows are shuffled within a batch). They stay the same, so that their references are computed once."""
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    found: dict[int, Answer] = {}
    for here, there in zip(order, [*order[1:], *order[:1]], strict=True):
        own, other = rows[here].answers[0], rows[there].answers[0]
        found[here] = Answer(np.concatenate([own.ids[:own.start], other.ids[other.start:]])[:context + 1], own.start)
    return [found[i] for i in range(len(rows))]
