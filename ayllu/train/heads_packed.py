"""The loss of heads over texts side by side in one row: products see no padding. In bfloat16 on a CPU with AMX,
attention and the gradients of weights come from ayllu/native. A compiler saves nothing more here: no two steps have the
same lengths.

The slow twin is `label_loss` (heads_loss.py); tests/train/test_heads_packed.py says how near losses and gradients are.

N tokens  B texts  D width  E head width  C outputs
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayllu import dist
from ayllu.data.text_packs import TextPack
from ayllu.model.attend import Attend, Masked, Within
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


def why_padded(config: HeadRecipe, device: torch.device) -> str | None:
    """Why texts have to be padded, as the end of a sentence; None where they can be packed."""
    if not config.native:
        return "native=false asks for the twin"
    return None if device.type == "cpu" and dist.world_size() == 1 else "only one process on a CPU packs"


def why_by_torch(config: HeadRecipe, model: Classifier) -> str | None:
    """Why no kernel computes packed texts, as the end of a sentence."""
    if config.loop.precision == "float32":
        return "the kernels compute in bfloat16"
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


def packed_loss(model: Classifier, body: CausalModel, batch: TextPack, hidden: float = 0.0, native: bool = True,
                **extras: Any) -> Loss:
    """As `label_loss`, which says what `extras` are; `body` is the model's, or computes the same.

    A token that nobody sees isn't there at all.
    """
    if hidden:
        batch = batch.kept((torch.rand(len(batch.ids)) >= hidden) | (batch.place == 0))
    return loss_of(model.head.kind, packed_logits(model, body, batch, native), batch.labels, **extras)


def packed_logits(model: Classifier, body: CausalModel, batch: TextPack, native: bool = True) -> Tensor:
    """As `Classifier.forward` has them: (B, C), or (N, C) of words."""
    x = body.embed(batch.ids[None])                                           # (1, N, D)
    h = body.trunk(x, batch.place[None], attends(model, batch, native))[0]            # (N, D)
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


def attends(model: Classifier, batch: TextPack, native: bool) -> list[Attend]:
    """Each token its text, in each layer: what came before it, and what follows where the head looks both ways."""
    config, both = model.config, model.head.attention == "both"
    windows = [config.window(layer) for layer in range(config.n_layers)]
    if native:
        made: dict[int | None, Attend] = {window: stretch(batch, window, both) for window in set(windows)}
    else:
        dropout = config.attention_dropout if model.training and isinstance(config, LlamaConfig) else 0.0
        made = {window: apart(batch, window, both, dropout) for window in set(windows)}
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


@dataclass(frozen=True)
class Apart:
    """Each text by itself, by torch: for attention alone texts of about the same length are padded to the longest."""

    slot: Tensor                                         # (N,) where each token lies in the groups, one after the other
    groups: list[Masked]                                 # of (b, t) tokens each

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (1, N, H, E)
        shapes = [group.mask.shape[:2] for group in self.groups]
        laid = [x.new_zeros(sum(b * t for b, t in shapes), *x.shape[2:]).index_copy(0, self.slot, x[0])
                .split([b * t for b, t in shapes]) for x in (q, k, v)]
        seen = [group(*(x.unflatten(0, shape) for x in parts)).flatten(0, 1)
                for group, shape, parts in zip(self.groups, shapes, zip(*laid, strict=True), strict=True)]
        return torch.cat(seen)[self.slot][None]


def apart(batch: TextPack, window: int | None, both: bool, dropout: float) -> Apart:
    """As `stretch`. In a group no text is more than 1.5 times as long as another."""
    count = batch.text.bincount()                                             # (B,)
    size = (count.log2() * 2).ceil()                                          # (B,) powers of the root of 2
    start, groups, end = torch.empty_like(count), list[tuple[int, int]](), 0
    for one in size.unique():
        rows = (size == one).nonzero()[:, 0]
        groups.append((len(rows), int(count[rows].max())))
        start[rows] = end + groups[-1][1] * torch.arange(len(rows))
        end += groups[-1][0] * groups[-1][1]
    slot = start[batch.text] + torch.arange(len(batch.text)) - (count.cumsum(0) - count)[batch.text]
    places = torch.full((end,), -1).index_copy(0, slot, batch.place).split([b * t for b, t in groups])
    return Apart(slot, [Masked(_mask(place.unflatten(0, shape), window, both), dropout)
                        for place, shape in zip(places, groups, strict=True)])


def _mask(place: Tensor, window: int | None, both: bool) -> Tensor:           # (b, t), -1 on padding -> (b, t, t)
    far = place[:, :, None] - place[:, None, :]
    seen = (place >= 0)[:, None, :] & (far.abs() < (window or 1 << 31))
    if not both:
        seen = seen & (far >= 0)
    return seen | torch.eye(place.shape[1], dtype=torch.bool)                 # no row without a key
