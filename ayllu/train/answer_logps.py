"""Log-probabilities of whole answers: no more than one chunk's logits ever exist, and only of places that answer.

A answers  T places  N ids of answers in all  C ids of a chunk  D width  V vocabulary
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ayllu.data.pair_loader import Padded
from ayllu.model.build import CausalModel
from ayllu.train.head_loss import CHUNK_NUMBERS, GPU_NUMBERS


def answer_logps(model: CausalModel, batch: Padded) -> Tensor:
    """(A,) the sum of log p(id) over each answer's ids, in float32."""
    return torch.zeros_like(batch.sizes).index_add(0, batch.owner, id_logps(model, batch))


def id_logps(model: CausalModel, batch: Padded) -> Tensor:
    """(N,) log p of every answer's every id."""
    hidden = model.trunk(model.embed(batch.ids)).flatten(0, 1)[batch.places]  # (N, D)
    return model.head(hidden, lambda h, w: label_logps(h, w, batch.labels))


def label_logps(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """(N,) log softmax(W h)[label] from hidden states (N, D) and the head's matrix (V, D), by chunks whose logits are
    computed again in the backward pass."""
    size = max(CHUNK_NUMBERS.get(weight.device.type, GPU_NUMBERS) // weight.shape[0] // 64 * 64, 64)
    parts = zip(hidden.split(size), labels.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_logps(h, weight, ids) for h, ids in parts])
    return torch.cat([checkpoint(_logps, h, weight, ids, use_reentrant=False) for h, ids in parts])


def _logps(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:         # (C, D), (V, D), (C,) -> (C,)
    logits = F.linear(hidden, weight.to(hidden.dtype)).float()                # (C, V)
    return logits.gather(-1, labels[:, None])[:, 0] - logits.logsumexp(-1)
