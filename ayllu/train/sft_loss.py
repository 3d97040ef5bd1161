"""The loss of fine-tuning on conversations: cross-entropy of what is to be learned, with two things it may add.

NEFTune (arXiv:2310.05914) adds noise to the embeddings. An anchor keeps the answers near those of the base.

B rows  T tokens  D width  V vocabulary  N = B T  C tokens of a chunk
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ayllu.data.pack_loader import PADDING, PackedBatch
from ayllu.model.build import CausalModel
from ayllu.model.parallel import Layout
from ayllu.train.distill import Teacher
from ayllu.train.losses import Loss, token_loss
from ayllu.train.objective import By, hidden_states, masked_loss

ANCHOR_CHUNK = 256                                       # tokens whose two distributions exist at once
# Gives the base itself for a model in training: a frozen copy, or the model without its adapters.
BaseOf = Callable[[CausalModel], AbstractContextManager[CausalModel]]


@dataclass(frozen=True)
class Noise:
    """Uniform noise on [-1, 1] times alpha / sqrt(L D) for each embedding, L the tokens of its own conversation
    (arXiv:2310.05914, algorithm 1; there L is that of the padded batch)."""

    alpha: float

    def __call__(self, x: Tensor, batch: PackedBatch) -> Tensor:              # (B, T, D)
        same = batch.document[:, :, None] == batch.document[:, None, :]       # (B, T, T)
        size = self.alpha / (same.sum(-1, keepdim=True) * x.shape[-1]).float().sqrt()    # (B, T, 1)
        size = size * (batch.document != PADDING)[:, :, None]
        return x + (size * torch.empty_like(x, dtype=torch.float32).uniform_(-1, 1)).to(x.dtype)


@dataclass(frozen=True)
class Anchor:
    """Adds weight * KL(base || model) over the whole vocabulary at each place that is learned: what the base held to
    be likely stays so (learning without forgetting, arXiv:1606.09282, with its temperature at 1)."""

    weight: float
    base_of: BaseOf

    def __call__(self, model: CausalModel, hidden: Tensor, batch: PackedBatch, by: By) -> Tensor:
        """The sum for each row, (B,)."""
        with self.base_of(model) as base:
            with torch.no_grad():
                other = hidden_states(base, batch, by)                        # (B, T, D)
            apart = base.head(other.flatten(0, 1), lambda g, fixed: model.head(
                hidden.flatten(0, 1), lambda h, w: divergence(h, w, g, fixed.detach())))
        return self.weight * (apart.view(batch.weights.shape) * batch.weights).sum(1)


def divergence(hidden: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    """(N,) KL(base || model) from hidden states (N, D) and heads (V, D) of the model and of the base, by chunks whose
    logits are computed again in the backward pass."""
    parts = zip(hidden.split(ANCHOR_CHUNK), other.split(ANCHOR_CHUNK), strict=True)
    return torch.cat([checkpoint(_apart, h, weight, g, other_weight, use_reentrant=False) for h, g in parts])


def _apart(hidden: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> Tensor:
    log_p = F.log_softmax(F.linear(hidden, weight.to(hidden.dtype)).float(), -1)                     # (C, V)
    log_base = F.log_softmax(F.linear(other, other_weight.to(other.dtype)).float(), -1)              # (C, V)
    return F.kl_div(log_p, log_base, reduction="none", log_target=True).sum(-1)


def sft_loss(model: CausalModel, batch: PackedBatch, noise: Noise | None = None, anchor: Anchor | None = None,
             teacher: Teacher | None = None, by: By = "mask", **extras: Any) -> Loss:
    """Sum of weight * -log p(next id), as `masked_loss` has it; `extras` are those of `token_loss`.

    A teacher takes its share of the weight. What it, noise and anchor do is part of the loss that is logged; held-out
    losses never have them.
    """
    hidden = hidden_states(model, batch, by, noise)                          # (B, T, D)
    loss = token_loss(model, hidden, batch.labels, batch.weights, **extras)
    if teacher is not None:
        loss = _mixed(loss, teacher(model, hidden, batch, by), teacher.config.weight)
    if anchor is None:
        return loss
    added = anchor(model, hidden, batch, by)
    return Loss(loss.total + added.sum(), loss.weight, loss.per_example + added.detach())


def _mixed(loss: Loss, apart: Tensor, weight: float) -> Loss:                 # (B,)
    return Loss((1 - weight) * loss.total + weight * apart.sum(), loss.weight,
                (1 - weight) * loss.per_example + weight * apart.detach())


@torch.no_grad()
def answer_loss(model: CausalModel, batches: Iterable[PackedBatch], device: torch.device,
                autocast: torch.dtype | None, layout: Layout) -> float:
    """Nats for each learned token of the batches, of which the data ranks take turns. FSDP2 gathers weights on all of
    them together: one whose turn doesn't come any more reads what the first one reads, and doesn't count it."""
    model.eval()
    sums = torch.zeros(2, device=device)
    rest = iter(batches)
    while turn := list(islice(rest, layout.data)):
        counts = layout.data_rank < len(turn)
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            loss = masked_loss(model, turn[layout.data_rank if counts else 0].to(device))
        if counts:
            sums += torch.stack((loss.total, loss.weight))
    model.train()
    total, weight = layout.sum(sums).tolist()
    return total / weight
