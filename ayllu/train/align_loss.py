"""A Llama with senses in training: features take the places of placeholders, and the loss is the answers'."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.data.media_loader import MediaBatch
from ayllu.media.cross import memory_of
from ayllu.media.senses import Senses
from ayllu.media.splice import spliced
from ayllu.model.build import CausalModel
from ayllu.model.llama import Llama
from ayllu.train.align_config import Kl
from ayllu.train.distill import divergence
from ayllu.train.head_loss import HeadLoss
from ayllu.train.losses import Loss


class Aligned(nn.Module):
    """A Llama and its senses as one model to train."""

    def __init__(self, body: Llama, senses: Senses) -> None:
        super().__init__()
        self.body, self.senses = body, senses
        self.config = body.config

    def hidden(self, batch: MediaBatch) -> Tensor:                            # (B, T, D)
        """The trunk's output where features stand in their places."""
        if self.senses.cross is None:
            return self.body.trunk(self.embedded(batch))
        x = self.body.embed(batch.ids)
        return self.senses.cross.trunk(self.body, x, memory_of(batch.places, self._features(batch), x.shape[1]))

    def embedded(self, batch: MediaBatch) -> Tensor:                          # (B, T, D)
        """What the trunk is given: features in the places of their marks."""
        x, features = self.body.embed(batch.ids), self._features(batch)
        rows, at = [], 0
        for i, places in enumerate(batch.places):
            rows.append(spliced(x[i], places, features[at:at + len(places)]))
            at += len(places)
        return torch.stack(rows)

    def _features(self, batch: MediaBatch) -> list[Tensor]:
        media = [medium for row in batch.media for medium in row]
        return self.senses.features([replace(m, values=m.values.to(batch.ids.device)) for m in media])


def align_loss(model: CausalModel, batch: MediaBatch, kl: Kl | None = None) -> Loss:
    """Sum of -log p(next id) over the answers; with `kl` partly or wholly of the divergence from the Llama that reads
    the transcripts instead."""
    aligned = cast(Aligned, model)
    hidden = aligned.hidden(batch)
    if kl is None:
        return written_loss(aligned.body, hidden, batch)
    apart = divergences(aligned.body, hidden, batch, kl.temperature)          # (B,)
    if kl.weight == 1:
        return Loss(apart.sum(), batch.weights.sum(), apart.detach())
    written = written_loss(aligned.body, hidden, batch)
    return Loss(kl.weight * apart.sum() + (1 - kl.weight) * written.total, written.weight,
                kl.weight * apart.detach() + (1 - kl.weight) * written.per_example)


def written_loss(body: Llama, hidden: Tensor, batch: MediaBatch) -> Loss:
    """What `token_loss` gives, by the logits of the answers alone: most places hold features and questions."""
    learned = batch.weights > 0                                               # (B, T)
    total, each = body.head(hidden[learned], HeadLoss(batch.labels[learned], batch.weights[learned]))    # (), (N,)
    per_example = torch.zeros(len(batch), device=each.device).index_add(0, learned.nonzero()[:, 0], each)
    return Loss(total, batch.weights.sum(), per_example)


def divergences(body: Llama, hidden: Tensor, batch: MediaBatch, temperature: float) -> Tensor:
    """(B,) sums of T² KL(reads || hears) over the answers' ids, which both have: hidden states (B, T, D) of who hears.

    https://github.com/fixie-ai/ultravox trains so, at temperature 2; T² keeps the gradient's size (arXiv:1503.02531).
    """
    text = batch.text
    assert text is not None                              # `samples` has read it where a recipe has kl
    answers = batch.weights > 0                          # (B, T)
    with torch.no_grad():
        read = body.trunk(body.embed(text.ids))[text.weights > 0]             # (N, D)
        teacher = F.log_softmax(body.logits(read).float() / temperature, -1)
    student = F.log_softmax(body.logits(hidden[answers]).float() / temperature, -1)
    each = temperature ** 2 * divergence(teacher, student, "forward")         # (N,)
    row = answers.nonzero()[:, 0]
    return torch.zeros(len(batch), device=each.device).index_add(0, row, each)


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
