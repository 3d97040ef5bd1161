"""A Llama with senses in training: features take the places of placeholders, and the loss is the answers'."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ayllu.data.media_loader import MediaBatch
from ayllu.media.senses import Senses
from ayllu.media.splice import spliced
from ayllu.model.build import CausalModel
from ayllu.model.llama import Llama
from ayllu.train.losses import Loss, token_loss


class Aligned(nn.Module):
    """A Llama and its senses as one model to train."""

    def __init__(self, body: Llama, senses: Senses) -> None:
        super().__init__()
        self.body, self.senses = body, senses
        self.config = body.config

    def hidden(self, batch: MediaBatch) -> Tensor:                            # (B, T, D)
        """The trunk's output where features stand in their places."""
        x = self.body.embed(batch.ids)
        media = [medium for row in batch.media for medium in row]
        features = self.senses.features([replace(m, values=m.values.to(x.device)) for m in media])
        rows, at = [], 0
        for i, places in enumerate(batch.places):
            rows.append(spliced(x[i], places, features[at:at + len(places)]))
            at += len(places)
        return self.body.trunk(torch.stack(rows))


def align_loss(model: CausalModel, batch: MediaBatch) -> Loss:
    """Sum of -log p(next id) over the answers."""
    aligned = cast(Aligned, model)
    return token_loss(aligned.body, aligned.hidden(batch), batch.labels, batch.weights)


@torch.no_grad()
def held_out(model: CausalModel, batches: Iterable[MediaBatch], device: torch.device) -> dict[str, float]:
    """Loss per answer token, and the share of answers whose every token would be the likeliest."""
    aligned, total, weight, right, n = cast(Aligned, model), 0.0, 0.0, 0, 0
    was_training = aligned.training
    aligned.eval()
    for batch in batches:
        batch = batch.to(device)
        logits = aligned.body.logits(aligned.hidden(batch)).float()           # (B, T, V)
        losses = nn.functional.cross_entropy(logits.mT, batch.labels, reduction="none")
        total, weight = total + (losses * batch.weights).sum().item(), weight + batch.weights.sum().item()
        wrong = (logits.argmax(-1) != batch.labels) & (batch.weights > 0)
        right, n = right + int((~wrong.any(1)).sum()), n + len(batch)
    aligned.train(was_training)
    return {"held_out": total / max(weight, 1), "answers_right": right / max(n, 1)}
