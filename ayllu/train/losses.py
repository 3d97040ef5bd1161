"""Losses. Each returns sums, never means: `fit` alone divides, once, over all micro-batches and ranks."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ayllu.config import Settings
from ayllu.data.loader import Batch
from ayllu.model.build import CausalModel
from ayllu.model.parallel import Layout
from ayllu.train.head_loss import EAGER, HeadLoss, Kernels

IGNORED = -100


@dataclass
class Loss:
    """`total` is the sum to minimise, `weight` what it must be divided by (tokens, pairs), `per_example` (B,) sums."""

    total: Tensor
    weight: Tensor
    per_example: Tensor


class LossConfig(Settings):
    """What may be added to the next-token loss; 0 leaves it as it is."""

    z_loss: float = Field(default=0.0, ge=0)             # times (log Z)², keeps logits small (arXiv:2204.02311: 1e-4)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)   # the share spread over all ids (arXiv:1512.00567)
    chunk: int | None = Field(default=None, ge=0)        # tokens whose logits exist at once; None: picked; 0: all


def next_token_loss(model: CausalModel, batch: Batch, z_loss: float = 0.0, label_smoothing: float = 0.0,
                    chunk: int | None = None, kernels: Kernels = EAGER) -> Loss:
    """Sum of -log p(next id) over all labelled places.

    `z_loss` adds z_loss (log Z)² at each place, where Z is the softmax's denominator (PaLM, arXiv:2204.02311, section
    5); `label_smoothing` s takes (1 - s) of the loss and s of the mean over the vocabulary. Both are part of the loss
    that is logged; held-out losses never have them. `chunk` is that of LossConfig.
    """
    hidden = model.trunk(model.embed(batch.ids))                         # (B, T, D)
    return token_loss(model, hidden, batch.labels, (batch.labels != IGNORED).float(), z_loss, label_smoothing, chunk,
                      kernels)


def token_loss(model: CausalModel, hidden: Tensor, labels: Tensor, weights: Tensor, z_loss: float = 0.0,
               label_smoothing: float = 0.0, chunk: int | None = None, kernels: Kernels = EAGER) -> Loss:
    """Sum of weight × -log p(label) from the hidden states (B, T, D) of labels and float32 weights (B, T)."""
    if chunk == 0:
        with _products_in(hidden.dtype, hidden.device):
            logits = model.logits(hidden)
        each = plain_loss(logits, labels, z_loss, label_smoothing) * weights
        per_example = each.sum(1)
        return Loss(per_example.sum(), weights.sum(), per_example.detach())
    sweep = HeadLoss(labels.flatten().clamp(min=0), weights.flatten(), z_loss, label_smoothing, chunk, kernels)
    total, losses = model.head(hidden.flatten(0, 1), sweep)
    return Loss(total, weights.sum(), losses.view(labels.shape).sum(1))


def _products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Low hidden states (bf16_masters) meet a head in float32: it is rounded to them, as HeadLoss does."""
    return nullcontext() if dtype.itemsize > 2 else torch.autocast(device.type, dtype)


def plain_loss(logits: Tensor, labels: Tensor, z_loss: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """The slow twin of HeadLoss: the losses (B, T) of all logits (B, T, V) at once, by torch's own cross-entropy."""
    logits = logits.float()
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none",
                           label_smoothing=label_smoothing).view(labels.shape)
    return each + z_loss * logits.logsumexp(-1).square() if z_loss else each


@torch.no_grad()
def bits_of(model: CausalModel, batches: Sequence[Batch], device: torch.device, autocast: torch.dtype | None,
            layout: Layout | None = None) -> float:
    """-log2 p of all labels. With a layout, data ranks take the batches in turns and all get the same sum, bit for bit.

    FSDP2 gathers weights on all ranks together, so one with no batch left repeats the last one, which isn't counted.
    """
    model.eval()
    ranks, rank = (layout.data, layout.data_rank) if layout else (1, 0)
    totals = torch.zeros(len(batches), device=device)
    for mine in range(rank, -(-len(batches) // ranks) * ranks, ranks):
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            loss = next_token_loss(model, batches[min(mine, len(batches) - 1)].to(device))
        if mine < len(batches):
            totals[mine] = loss.total
    model.train()
    totals = layout.sum(totals) if layout else totals
    return sum(totals.tolist()) / math.log(2)            # in one order, whatever the number of ranks


def bits_per_byte(model: CausalModel, ids: Tensor, n_bytes: int, context: int, device: torch.device,
                  autocast: torch.dtype | None = None, rows: int = 8, layout: Layout | None = None) -> float:
    """-log2 p(ids) divided by the bytes of the text they spell; each id is predicted once.

    Windows of `context` ids overlap by half, so that (past the first window) every prediction sees at least
    half a context. The number compares models with different tokenizers.
    """
    return bits_of(model, _sliding_windows(ids, context, rows), device, autocast, layout) / n_bytes


def _sliding_windows(ids: Tensor, context: int, rows: int) -> list[Batch]:
    """Batches of (inputs, labels) in which each id but the first is a label exactly once."""
    half = max(context // 2, 1)
    inputs, labels = [], []
    for start in range(0, max(len(ids) - 1, 0), half):
        window = ids[start:start + context + 1]
        seen = 0 if start == 0 else context - half                       # labels that the window before had
        if len(window) - 1 <= seen:
            break
        padding = context + 1 - len(window)
        target = F.pad(window[1:], (0, padding), value=IGNORED).clone()
        target[:seen] = IGNORED
        inputs.append(F.pad(window[:-1], (0, padding)))
        labels.append(target)
    return [Batch(torch.stack(inputs[i:i + rows]), torch.stack(labels[i:i + rows]))
            for i in range(0, len(inputs), rows)]
