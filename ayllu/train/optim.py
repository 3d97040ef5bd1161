"""Which optimiser, and which parameters it decays."""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from ayllu.config import Settings
from ayllu.train.muon import Muon
from ayllu.train.prodigy import Prodigy
from ayllu.train.schedule import Schedule
from ayllu.train.schedule_free import ScheduleFree


class OptimConfig(Settings):
    """An optimiser with decoupled decay (arXiv:1711.05101), gradient clipping and a schedule.

    adamw; muon (its matrices orthogonalised, AdamW for the rest, with AdamW's rate and decay); schedule_free (needs a
    warm-up and no decay of the rate; rates 1 to 10 times AdamW's); prodigy (finds the rate itself; lr is a factor, 1).
    """

    kind: Literal["adamw", "muon", "schedule_free", "prodigy"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.95, ge=0, lt=1)    # of muon's matrices
    schedule: Schedule = Schedule()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        special: dict[str, dict[str, Any]] = {"prodigy": {"lr": 1.0}, "schedule_free": {"schedule": {
            "kind": "constant"}}}
        return {**special.get(values.get("kind", "adamw"), {}), **values}

    @model_validator(mode="after")
    def _schedule_free_has_no_schedule(self) -> "OptimConfig":
        if self.kind == "schedule_free" and self.schedule.kind != "constant":
            raise ValueError(f"schedule_free averages instead of lowering the rate, found schedule.kind="
                             f"{self.schedule.kind!r}: set optim.schedule.kind=constant")
        return self


def build_optimizer(model: nn.Module, config: OptimConfig, plus: float = 1.0) -> torch.optim.Optimizer:
    """The optimiser over all that is trained; matrices decay, while norms, biases and embeddings are left alone.

    A tied head is an embedding; a head of its own decays, but Muon leaves it to AdamW. `plus` is what the rate of an
    adapter's B is, as a multiple of that of its A (LoRA+, arXiv:2402.12354).
    """
    groups = faster(model, parameter_groups(model, config.weight_decay, config.kind == "muon"), plus)
    match config.kind:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        case "muon":
            return Muon(groups, config.lr, config.betas, config.eps, config.momentum)
        case "schedule_free":
            return ScheduleFree(groups, config.lr, config.betas, config.eps)
        case "prodigy":
            return Prodigy(groups, config.lr, config.betas, config.eps)


def parameter_groups(model: nn.Module, weight_decay: float, muon: bool = False) -> list[dict[str, Any]]:
    """Parameters by treatment: hidden matrices for Muon if asked, what else decays, what doesn't."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    hidden: list[nn.Parameter] = []
    decays: list[nn.Parameter] = []
    stays: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dim() < 2 or id(parameter) in embeddings:
            stays.append(parameter)
        elif muon and parameter.dim() == 2 and not name.endswith(("output.weight", "score.weight")):
            hidden.append(parameter)
        else:
            decays.append(parameter)
    groups: list[dict[str, Any]] = [{"params": decays, "weight_decay": weight_decay},
                                    {"params": stays, "weight_decay": 0.0}]
    if muon:
        groups.insert(0, {"params": hidden, "weight_decay": weight_decay, "muon": True})
    return [g for g in groups if g["params"]]


def faster(model: nn.Module, groups: list[dict[str, Any]], plus: float) -> list[dict[str, Any]]:
    """The groups with every adapter's B in one of its own, whose rate the loop multiplies."""
    if plus == 1:
        return groups
    quick = {id(p) for name, p in model.named_parameters() if name.endswith(".lora_b")}
    out = []
    for group in groups:
        for is_quick in (False, True):
            if some := [p for p in group["params"] if (id(p) in quick) == is_quick]:
                out.append({**group, "params": some} | ({"plus": plus} if is_quick else {}))
    return out
