"""The loss of learning from preferences on a batch, and what it notes on the way: rewards, margin, accuracy.

A answers, of pairs those of the better ones first  B pairs
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ayllu.data.pair_loader import Padded
from ayllu.model.build import CausalModel
from ayllu.model.parallel import ALONE, Layout
from ayllu.train import preference_losses as losses
from ayllu.train.answer_logps import answer_logps
from ayllu.train.losses import Loss
from ayllu.train.prefer_config import PreferConfig


@dataclass
class Tally:
    """Sums of what the micro-batches of a step noted; `fit` asks for them once a step."""

    layout: Layout = ALONE
    sums: dict[str, Tensor] = field(default_factory=dict)    # (2,) the sum, and of how many

    def add(self, name: str, values: Tensor, of_them: Tensor | None = None) -> None:
        """Note some numbers, or those that a mask names."""
        counted = torch.ones_like(values, dtype=torch.float32) if of_them is None else of_them.float()
        both = torch.stack(((values.detach().float() * counted).sum(), counted.sum()))
        self.sums[name] = self.sums[name] + both if name in self.sums else both

    def row(self) -> dict[str, float]:
        """The means since the last time, over all ranks."""
        found = {name: self.layout.sum(both) for name, both in self.sums.items()}
        self.sums = {}
        return {name: (total / max(n, 1)) for name, both in found.items() for total, n in [both.tolist()]}

    def observe(self, loss: float) -> None:
        """The batches don't follow the loss."""

    def state(self) -> dict[str, Any]:
        """Nothing that a resume needs: notes end with their step."""
        return {"notes": 0}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing."""


def prefer_loss(model: CausalModel, batch: Padded, config: PreferConfig, tally: Tally) -> Loss:
    """The sum over pairs, or of kto over answers."""
    logps = answer_logps(model, batch)                                        # (A,)
    if config.method == "kto":
        each = losses.kto(logps - batch.reference, batch.is_good, zero_of(model, batch, tally.layout), config.strength,
                          config.good_weight, config.bad_weight)
    else:
        each = pair_losses(logps.view(2, -1), batch.reference.view(2, -1), batch.sizes.view(2, -1), config)
    note(logps, batch, config, tally)
    return Loss(each.sum(), torch.tensor(float(len(each)), device=each.device), each.detach())


def pair_losses(logps: Tensor, reference: Tensor, sizes: Tensor, config: PreferConfig) -> Tensor:
    """(B,) from log-probabilities and sizes (2, B) of the better answers and the worse ones."""
    good, bad = (logps - reference if config.method == "dpo" else
                 (logps - reference) / sizes if config.method == "ipo" else logps / sizes)
    match config.method:
        case "dpo":
            return losses.dpo(good, bad, config.strength, config.label_smoothing)
        case "ipo":
            return losses.ipo(good, bad, config.strength)
        case "orpo":
            return losses.orpo(good, bad, config.strength)
        case "simpo":
            return losses.simpo(good, bad, config.strength, config.gamma)
        case "kto" | "reward":
            raise AssertionError(f"{config.method} doesn't compare log-probabilities of pairs")


def rewards(logps: Tensor, batch: Padded, config: PreferConfig) -> Tensor:
    """(A,) what the method's loss takes for an answer's worth: beta times the log ratio, or times the mean."""
    if config.has_reference:
        return config.strength * (logps - batch.reference) / (batch.sizes if config.method == "ipo" else 1)
    return config.strength * logps / batch.sizes


@torch.no_grad()
def zero_of(model: CausalModel, batch: Padded, layout: Layout) -> Tensor:
    """() KTO's z0 of the whole step, whatever its micro-batches: the first of them computes it."""
    if "zero" not in batch.shared:
        other = batch.others
        assert other is not None                         # the loader gives it to kto
        found = answer_logps(model, other) - other.reference
        total, n = layout.sum(torch.stack((found.sum(), torch.tensor(float(len(found)), device=found.device))))
        batch.shared["zero"] = losses.kto_zero((total / n)[None])
    return batch.shared["zero"]


def note(logps: Tensor, batch: Padded, config: PreferConfig, tally: Tally) -> None:
    """Rewards of both sides; of pairs their margins, and how often they are right."""
    found = rewards(logps.detach(), batch, config)
    tally.add("reward_chosen", found, batch.is_good)
    tally.add("reward_rejected", found, ~batch.is_good)
    if config.method != "kto":
        good, bad = found.chunk(2)
        margin = good - bad
        tally.add("margin", margin)
        tally.add("accuracy", (margin > 0).float())
