"""An adapter added into the weights themselves, with a comparison before and after that refuses a bad merge.

A weight of bfloat16 has 8 bits: what an adapter adds may be less than its last one and be lost in rounding, so that the
merged model is nearly the base again. Merging is therefore measured: on some ids, logits with the adapter beside the
weights against logits with it in them, as a share of what the adapter changes at all.

B rows  T tokens  V vocabulary
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ayllu.adapters.lora import Adapter, attach, attached, check_fits, detach
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.init import generator
from ayllu.model.llama import Llama

LARGEST_LOSS = 0.1                                       # of the adapter's effect; float32 loses about a millionth


@dataclass(frozen=True)
class Comparison:
    """Norms over all logits of the ids that were tried."""

    effect: float                                        # |logits with the adapter - logits of the base|
    error: float                                         # |logits of the merged model - logits with the adapter|

    @property
    def loss(self) -> float:
        """The share of the adapter's effect that merging spoilt; NaN where logits are not finite."""
        return self.error / self.effect if self.effect else self.error


class Merged:
    """A model with an adapter in its weights. `undo` gives the base back, bit for bit: its weights are kept."""

    def __init__(self, model: Llama, before: dict[str, Tensor], comparison: Comparison) -> None:
        self.model, self.comparison = model, comparison
        self._before = before

    def undo(self) -> None:
        """The base's own weights again."""
        for name, weight in self._before.items():
            self.model.get_parameter(f"{name}.weight").data = weight
        self._before = {}


@torch.no_grad()
def merge(model: Llama, adapter: Adapter, ids: Tensor | None = None, largest_loss: float = LARGEST_LOSS) -> Merged:
    """Add the adapter to the weights in their own dtype. `ids` (B, T) are what the comparison reads: some of the texts
    that the adapter is for are best, drawn ids otherwise. Where it fails, the model is as before and an error says so.
    """
    if any(True for _ in attached(model)):
        raise ConfigError("the model has an adapter beside its weights: detach it before another is merged")
    check_fits(adapter, model)
    if ids is None:
        n = min(32, model.config.max_context)
        ids = torch.randint(model.config.vocab_size, (2, n), generator=generator(0, "merge"))
    is_training, trained = model.training, {name for name, p in model.named_parameters() if p.requires_grad}
    model.eval()
    ids = ids.to(model.tok_embeddings.weight.device)
    base = model(ids).float()                                                 # (B, T, V)
    attach(model, adapter)
    beside = model(ids).float()
    detach(model, adapter.config)
    before = {name: model.get_parameter(f"{name}.weight").data for name in adapter.pairs}
    for name, pair in adapter.pairs.items():
        weight, scale = before[name], adapter.config.scale(name)
        on_device = type(pair)(*(tensor.to(weight.device) for tensor in pair.tensors))
        model.get_parameter(f"{name}.weight").data = on_device.adapted(weight, scale).to(weight.dtype)
    within = model(ids).float()
    model.train(is_training)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    merged = Merged(model, before, Comparison((beside - base).norm().item(), (within - beside).norm().item()))
    loss = merged.comparison.loss
    if not loss <= largest_loss:                         # NaN, too
        dtype = str(model.tok_embeddings.weight.dtype).removeprefix("torch.")
        merged.undo()
        raise CheckpointError(f"merging would spoil {100 * loss:.3g} % of what the adapter does, at most "
                              f"{100 * largest_loss:g} % is allowed: {dtype} is too coarse for its small changes; load "
                              "the base in float32, merge there, or leave the adapter beside the weights")
    return merged
