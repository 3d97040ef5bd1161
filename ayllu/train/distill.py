"""Distillation: answers are learned from a teacher's whole distributions, not only from the ids that were written.

At each learned place T² KL of the two distributions at temperature T (arXiv:1503.02531, section 2), forward
KL(teacher || student) or reverse KL(student || teacher) (arXiv:2306.08543, eq. 1). With `top_k` the teacher's likeliest
ids and one class for all the rest stand for its distribution; they are kept once a window has been read, so that later
epochs don't run the teacher. The divergence of these classes is never above the whole one, and equal where k is all.

B rows  T tokens  N places  C places of a chunk  D, E widths of student and teacher  V vocabulary  K ids kept
"""

import hashlib
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ayllu.config import Settings
from ayllu.data.pack_loader import PackedBatch
from ayllu.model.build import CausalModel
from ayllu.model.config import LlamaConfig
from ayllu.model.parallel import Precision
from ayllu.train.objective import By, hidden_states

CHUNK = 256                                              # places whose two distributions exist at once
Direction = Literal["forward", "reverse"]


class DistillConfig(Settings):
    """A teacher with the same tokenizer."""

    teacher: str                                         # a folder, a file, a hub name
    model: LlamaConfig | None = None                     # its shape; None: read from it
    weight: float = Field(default=0.5, gt=0, le=1)       # of the teacher in the loss; the ids as written have the rest
    temperature: float = Field(default=1.0, gt=0)        # of both distributions
    direction: Direction = "forward"                     # KL(teacher || student), or the other way round
    top_k: int = Field(default=0, ge=0)                  # ids kept of each distribution; 0: all, computed every time


def reading_dtype(precision: Precision) -> torch.dtype:
    """Of a model that only reads, beside the one that learns."""
    return torch.float32 if precision == "float32" else torch.bfloat16


class Teacher:
    """Adds up what the student's distributions are away from the teacher's."""

    def __init__(self, model: CausalModel, config: DistillConfig) -> None:
        self.model, self.config = model.eval().requires_grad_(False), config
        self.kept: dict[bytes, tuple[Tensor, Tensor]] = {}    # by a row's content: (T, K) log-probabilities and ids

    def __call__(self, model: CausalModel, hidden: Tensor, batch: PackedBatch, by: By) -> Tensor:
        """(B,) sums over learned places, from the student's hidden states (B, T, D)."""
        h = hidden.flatten(0, 1)                                              # (N, D)
        if self.config.top_k:
            log_p, ids = self._likeliest(batch, by)
            each = model.head(h, lambda x, w: self._kept_apart(x, w, log_p, ids))
        else:
            with torch.no_grad():
                g = hidden_states(self.model, batch, by).flatten(0, 1)        # (N, E)
            each = self.model.head(g, lambda y, fixed: model.head(
                h, lambda x, w: _by_chunks(self._apart, (x, y), w, fixed.detach())))
        return (each.view(batch.weights.shape) * batch.weights).sum(1)

    def _apart(self, h: Tensor, g: Tensor, weight: Tensor, fixed: Tensor) -> Tensor:      # (C, D), (C, E) -> (C,)
        student, teacher = (F.log_softmax(F.linear(x, w.to(x.dtype)).float() / self.config.temperature, -1)
                            for x, w in ((h, weight), (g, fixed)))            # (C, V)
        return self.config.temperature ** 2 * divergence(teacher, student, self.config.direction)

    def _kept_apart(self, h: Tensor, weight: Tensor, log_p: Tensor, ids: Tensor) -> Tensor:
        def part(h: Tensor, p: Tensor, i: Tensor, weight: Tensor) -> Tensor:
            student = F.log_softmax(F.linear(h, weight.to(h.dtype)).float() / self.config.temperature, -1)
            return self.config.temperature ** 2 * divergence(with_rest(p), with_rest(student.gather(-1, i)),
                                                             self.config.direction)

        return _by_chunks(part, (h, log_p, ids), weight)

    @torch.no_grad()
    def _likeliest(self, batch: PackedBatch, by: By) -> tuple[Tensor, Tensor]:
        """(N, K) the teacher's likeliest ids. Each row is read by itself, so that what is kept doesn't depend on its
        neighbours, and a resume finds the same."""
        found = []
        for one in batch.split(1):
            key = hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in (one.ids, one.document))).digest()
            if key not in self.kept:
                logits = self.model.logits(hidden_states(self.model, one, by)[0]).float() / self.config.temperature
                top = logits.topk(min(self.config.top_k, logits.shape[-1]))   # (T, K)
                log_p = top.values - logits.logsumexp(-1, keepdim=True)
                self.kept[key] = log_p.cpu(), top.indices.int().cpu()
            found.append(self.kept[key])
        device = batch.ids.device
        return (torch.cat([log_p for log_p, _ in found]).to(device),
                torch.cat([ids for _, ids in found]).to(device).long())


def divergence(teacher: Tensor, student: Tensor, direction: Direction) -> Tensor:
    """(C,) from log-probabilities (C, V)."""
    a, b = (teacher, student) if direction == "forward" else (student, teacher)
    return (a.exp() * (a - b)).sum(-1)


def with_rest(log_p: Tensor) -> Tensor:
    """(C, K + 1): the last is the log-probability of all other ids together, 1e-7 at least, which float32 can tell
    from 0."""
    rest = (1 - log_p.exp().sum(-1, keepdim=True)).clamp(min=1e-7)
    return torch.cat((log_p, rest.log()), -1)


def _by_chunks(part: Callable[..., Tensor], rows: tuple[Tensor, ...], *fixed: Tensor) -> Tensor:
    """(N,) over chunks of places, whose logits are computed again in the backward pass."""
    pieces = zip(*(x.split(CHUNK) for x in rows), strict=True)
    return torch.cat([checkpoint(part, *piece, *fixed, use_reentrant=False) for piece in pieces])
