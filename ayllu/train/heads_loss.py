"""The losses of heads: sums over rows, or over words, as `fit` wants them.

B batch  T tokens  N labels
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.data.label_loader import IGNORED, TextBatch, Texts
from ayllu.model.heads import Classifier, Kind
from ayllu.train.losses import Loss


def label_loss(model: Classifier, batch: TextBatch, weights: Tensor | None = None, smoothing: float = 0.0,
               hidden: float = 0.0) -> Loss:
    """Cross-entropy over classes (words' classes, too), over yes and no for each of many labels, or squared error.

    `weights` (N,) count classes differently: the loss is then divided by the sum of the weights of what was seen, as
    torch's own cross-entropy does. For many labels they weigh each label's yes (Σ yes = Σ no where balanced).
    `hidden` is the share of tokens that nobody sees this time; the first one of each text stays.
    """
    seen = batch.is_token
    if hidden:
        kept = torch.rand(seen.shape, device=seen.device) >= hidden
        kept[:, 0] = True
        seen = seen & kept
    return loss_of(model.head.kind, model(batch.ids, seen), batch.labels, weights, smoothing)


def loss_of(kind: Kind, logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Loss:
    """That of logits (B, N), or of words' (..., N)."""
    match kind:
        case "multi":
            soft = labels * (1 - smoothing) + smoothing / 2
            each = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none").mean(1)
        case "regression":
            each = (logits[:, 0] - labels).square()
        case _:
            return _class_loss(logits, labels, weights, smoothing)
    return Loss(each.sum(), each.new_tensor(float(len(each))), each.detach())


def _class_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Loss:
    shape = labels.shape                                                      # (B,) or (B, T)
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=IGNORED,
                           label_smoothing=smoothing)
    seen = (labels != IGNORED).flatten()
    counts = seen.float() if weights is None else weights[labels.flatten().clamp(min=0)] * seen
    each = each * counts
    return Loss(each.sum(), counts.sum(), each.detach().view(shape).flatten(1).sum(1) if len(shape) > 1
                else each.detach())


def balanced(texts: Texts, n_outputs: int, kind: Kind) -> Tensor:
    """(N,) weights with which each class counts the same; 0 for a class that never occurs. For many labels, how many
    times rarer each yes is than its no."""
    if kind == "multi":
        yes = torch.tensor(texts.labels).sum(0)
        return (len(texts) - yes) / yes.clamp(min=1)
    numbers = torch.tensor([n for label in texts.labels for n in (label if isinstance(label, list) else [label])
                            if n != IGNORED], dtype=torch.long)
    counts = torch.bincount(numbers, minlength=n_outputs).float()
    return torch.where(counts > 0, len(numbers) / (counts > 0).sum() / counts.clamp(min=1), 0.0)


@torch.no_grad()
def logits_of(model: Classifier, texts: Texts, rows: int, device: torch.device) -> list[Tensor]:
    """For each text, its logits in float32: (N,), or (words, N) where words have labels."""
    was_training = model.training
    model.eval()
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for numbers, batch in texts.in_order(rows):
        found = model(batch.ids.to(device), batch.is_token.to(device)).cpu()
        for i, row in enumerate(numbers):
            out[row] = found[i] if found.dim() == 2 else found[i][batch.labels[i] != IGNORED]
    model.train(was_training)
    return out


def mean_loss(logits: list[Tensor], texts: Texts, kind: Kind) -> float:
    """The loss without weights or smoothing, for early stopping."""
    found, labels = flat(logits, texts, kind)
    match kind:
        case "multi":
            return F.binary_cross_entropy_with_logits(found, labels).item()
        case "regression":
            return (found[:, 0] - labels).square().mean().item()
    return F.cross_entropy(found, labels).item()


def flat(logits: list[Tensor], texts: Texts, kind: Kind) -> tuple[Tensor, Tensor]:
    """(rows or words, N) logits and their labels."""
    if kind == "tokens":
        labels = [n for label in texts.labels for n in label if n != IGNORED]      # type: ignore[union-attr]
        return torch.cat(logits), torch.tensor(labels)
    return torch.stack(logits), torch.tensor(texts.labels, dtype=torch.long if kind == "single" else torch.float32)


