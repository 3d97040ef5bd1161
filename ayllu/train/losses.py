"""Losses. Each returns sums, never means: `fit` alone divides, once, over all micro-batches and ranks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ayllu.config import Settings
from ayllu.data.loader import Batch
from ayllu.model.build import CausalModel

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


def next_token_loss(model: CausalModel, batch: Batch, z_loss: float = 0.0, label_smoothing: float = 0.0) -> Loss:
    """Sum of -log p(next id) over all labelled places.

    `z_loss` adds z_loss (log Z)² at each place, where Z is the softmax's denominator (PaLM, arXiv:2204.02311, section
    5); `label_smoothing` s takes (1 - s) of the loss and s of the mean over the vocabulary. Both are part of the loss
    that is logged; held-out losses never have them.
    """
    hidden = model.trunk(model.embed(batch.ids))                         # (B, T, D)
    logits = model.logits(hidden).float()                                # (B, T, V)
    each = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none",
                           label_smoothing=label_smoothing)
    if z_loss:
        log_z = logits.flatten(0, 1).logsumexp(-1)                       # (B T,)
        each = each + z_loss * log_z.square() * (batch.labels.flatten() != IGNORED)
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
