"""The loss of packed, masked batches: each document by itself, with its own attention and positions."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ayllu.data.pack_loader import PackedBatch
from ayllu.model.attend import Attend, Causal, apart, within
from ayllu.model.build import CausalModel
from ayllu.model.flex import flex as block_sparse
from ayllu.train.head_loss import EAGER, Kernels
from ayllu.train.losses import Loss, token_loss

# SDPA; FlexAttention; stretches of keys, for ayllu/native; SDPA over each document by itself
By = Literal["mask", "flex", "within", "apart"]


def masked_loss(model: CausalModel, batch: PackedBatch, z_loss: float = 0.0, label_smoothing: float = 0.0,
                chunk: int | None = None, kernels: Kernels = EAGER,
                by: By = "mask") -> Loss:
    """Sum of weight × -log p(label) over all learned places; `weight` is the sum of the weights.

    The label is the next id for left-to-right objectives and the hidden id itself for masked tokens: the batch says.
    `by` says what computes attention, not its result; the rest is as in `next_token_loss`.
    """
    hidden = hidden_states(model, batch, by)                                 # (B, T, D)
    return token_loss(model, hidden, batch.labels, batch.weights, z_loss, label_smoothing, chunk, kernels)


def hidden_states(model: CausalModel, batch: PackedBatch, by: By = "mask",
                  noisy: Callable[[Tensor, PackedBatch], Tensor] | None = None) -> Tensor:
    """(B, T, D), what the head reads; `noisy` may change the embeddings on the way."""
    x = model.embed(batch.ids)
    return model.trunk(x if noisy is None else noisy(x, batch), batch.positions, attends(model, batch, by))


def attends(model: CausalModel, batch: PackedBatch, by: By = "mask") -> list[Attend]:
    """One view for each layer, with the window and the dropout that it has in plain training."""
    made: dict[Causal, Attend] = {}
    out: list[Attend] = []
    for plain in model.causal():
        assert isinstance(plain, Causal)
        if plain not in made:                                                # layers of a kind share one mask
            ways = {"flex": block_sparse, "within": within, "apart": apart}                  # these have no dropout
            make = None if plain.dropout else ways.get(by)
            made[plain] = ((make and make(batch.document, batch.two_way, plain.window))
                           or batch.attend(plain.window, plain.dropout))
        out.append(made[plain])
    return out
