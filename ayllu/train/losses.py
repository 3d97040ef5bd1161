"""Losses. Each returns sums, never means: `fit` alone divides, once, over all micro-batches and ranks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.data.loader import Batch
from ayllu.model.build import CausalModel

IGNORED = -100


@dataclass
class Loss:
    """`total` is the sum to minimise, `weight` what it must be divided by (tokens, pairs), `per_example` (B,) sums."""

    total: Tensor
    weight: Tensor
    per_example: Tensor


def next_token_loss(model: CausalModel, batch: Batch) -> Loss:
    """Sum of -log p(next id) over all labelled places."""
    hidden = model.trunk(model.embed(batch.ids))                         # (B, T, D)
    logits = model.logits(hidden).float()                                # (B, T, V)
    each = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none")
    per_example = each.view(batch.labels.shape).sum(1)
    return Loss(per_example.sum(), (batch.labels != IGNORED).sum(), per_example.detach())


@torch.no_grad()
def bits_per_byte(model: CausalModel, ids: Tensor, n_bytes: int, context: int, device: torch.device,
                  autocast: torch.dtype | None = None, rows: int = 8) -> float:
    """-log2 p(ids) divided by the bytes of the text they spell; each id is predicted once.

    Windows of `context` ids overlap by half, so that (past the first window) every prediction sees at least
    half a context. The number compares models with different tokenizers.
    """
    model.eval()
    bits = 0.0
    for inputs, labels in _sliding_windows(ids, context, rows):
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            loss = next_token_loss(model, Batch(inputs.to(device), labels.to(device)))
        bits += loss.total.item() / torch.log(torch.tensor(2.0)).item()
    model.train()
    return bits / n_bytes


def _sliding_windows(ids: Tensor, context: int, rows: int) -> list[tuple[Tensor, Tensor]]:
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
    return [(torch.stack(inputs[i:i + rows]), torch.stack(labels[i:i + rows])) for i in range(0, len(inputs), rows)]
