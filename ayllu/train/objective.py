"""The loss of packed, masked batches: each document by itself, with its own attention and positions."""

import torch.nn.functional as F

from ayllu.data.pack_loader import PackedBatch
from ayllu.model.attend import Attend, Causal
from ayllu.model.build import CausalModel
from ayllu.train.losses import IGNORED, Loss


def masked_loss(model: CausalModel, batch: PackedBatch, z_loss: float = 0.0, label_smoothing: float = 0.0) -> Loss:
    """Sum of weight × -log p(label) over all learned places; `weight` is the sum of the weights.

    The label is the next id for left-to-right objectives and the hidden id itself for masked tokens: the batch says.
    `z_loss` and `label_smoothing` are those of `next_token_loss`.
    """
    hidden = model.trunk(model.embed(batch.ids), batch.positions, attends(model, batch))    # (B, T, D)
    logits = model.logits(hidden).float()                                                   # (B, T, V)
    each = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none",
                           label_smoothing=label_smoothing)
    if z_loss:
        log_z = logits.flatten(0, 1).logsumexp(-1)                                          # (B T,)
        each = each + z_loss * log_z.square()
    per_example = (each.view(batch.labels.shape) * batch.weights).sum(1)
    return Loss(per_example.sum(), batch.weights.sum(), per_example.detach())


def attends(model: CausalModel, batch: PackedBatch) -> list[Attend]:
    """One view for each layer, with the window and the dropout that it has in plain training."""
    made: dict[Causal, Attend] = {}
    out: list[Attend] = []
    for plain in model.causal():
        assert isinstance(plain, Causal)
        if plain not in made:                                                # layers of a kind share one mask
            made[plain] = batch.attend(plain.window, plain.dropout)
        out.append(made[plain])
    return out
