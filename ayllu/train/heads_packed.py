"""The loss of heads over texts side by side in one row: nothing is computed for padding, and attention and the
gradients of weights come from ayllu/native. A compiler saves nothing more here: no two steps have the same lengths.

The slow twin is `label_loss` (heads_loss.py); tests/train/test_heads_packed.py says how near losses and gradients are.

N tokens  B texts  D width  E head width  C outputs
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ayllu import dist
from ayllu.data.text_packs import TextPack
from ayllu.model.attend import Attend, Within
from ayllu.model.build import CausalModel
from ayllu.model.config import LlamaConfig
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.parallel import Precision
from ayllu.native.attention import fits
from ayllu.native.build import missing
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_loss import loss_of
from ayllu.train.losses import Loss
from ayllu.train.trainee import TraineeLoss


def why_padded(config: HeadRecipe, model: Classifier, device: torch.device) -> str | None:
    """Why texts have to be padded, as the end of a sentence; None where they can be packed."""
    if not config.native or config.loop.precision == "float32":
        return "native=false and loop.precision=float32 ask for torch's own products"
    if device.type != "cpu" or dist.world_size() > 1:
        return "only one process on a CPU packs"
    if (reason := missing()) is not None:
        return reason
    shape = model.config
    if isinstance(shape, LlamaConfig) and shape.attention_dropout:
        return "the kernel has no dropout of attention"
    one = torch.empty(1, 1, 1, shape.head_dim, dtype=torch.bfloat16)
    return None if fits(one, one) else f"the kernel takes no heads of width {shape.head_dim}"


class PackedLoss:
    """Runs the body as a trainee (trainee.py): in the run's precision, with the kernels."""

    def __init__(self, loss: Callable[[Classifier, CausalModel, TextPack], Loss], precision: Precision) -> None:
        self.body = TraineeLoss(lambda body, given: loss(given[0], body, given[1]), precision, compiled=False,
                                recomputes=False, native=True)

    def __call__(self, model: Classifier, batch: TextPack) -> Loss:
        return self.body(model.body, (model, batch))


def packed_loss(model: Classifier, body: CausalModel, batch: TextPack, hidden: float = 0.0, **extras: Any) -> Loss:
    """As `label_loss`, which says what `extras` are; `body` is the model's, or computes the same.

    A token that nobody sees isn't there at all.
    """
    if hidden:
        batch = batch.kept((torch.rand(len(batch.ids)) >= hidden) | (batch.place == 0))
    return loss_of(model.head.kind, packed_logits(model, body, batch), batch.labels, **extras)


def packed_logits(model: Classifier, body: CausalModel, batch: TextPack) -> Tensor:      # (B, C), or (N, C) of words
    """As `Classifier.forward` has them."""
    x = body.embed(batch.ids[None])                                           # (1, N, D)
    h = body.trunk(x, batch.place[None], attends(model, batch))[0]            # (N, D)
    if model.head.kind != "tokens":
        h = pooled(h, batch.text, model.head)                                 # (B, D)
    return model.score(model.dropout(h).to(model.score.weight.dtype)).float()


def pooled(h: Tensor, text: Tensor, head: HeadConfig) -> Tensor:              # (N, D), (N,) -> (B, D)
    """The hidden state of each text's last token, or the mean over its tokens in float32."""
    count = text.bincount()                                                   # (B,)
    if head.pooling == "last":
        return h[count.cumsum(0) - 1]
    total = h.new_zeros(len(count), h.shape[1], dtype=torch.float32).index_add(0, text, h.float())
    return total / count[:, None]


def attends(model: Classifier, batch: TextPack) -> list[Attend]:
    """Each token its text, in each layer: what came before it, and what follows where the head looks both ways."""
    made: dict[int | None, Attend] = {}
    for window in (windows := [model.config.window(layer) for layer in range(model.config.n_layers)]):
        if window not in made:
            made[window] = stretch(batch, window, model.head.attention == "both")
    return [made[window] for window in windows]


def stretch(batch: TextPack, window: int | None, both: bool) -> Within:
    """What each token sees: places of its text nearer than `window`, which may have gaps."""
    far = 1 << 31                                                             # more than any place
    key = batch.text * far + batch.place                                      # (N,) ascending
    reach = far if window is None else window
    first = torch.searchsorted(key, batch.text * far + (batch.place - reach + 1).clamp(min=0))
    last = batch.place + reach if both else batch.place + 1
    end = torch.searchsorted(key, batch.text * far + last.clamp(max=far - 1))
    return Within(first[None].int(), end[None].int())
