"""The loss of GRPO (arXiv:2402.03300) and of Dr. GRPO (arXiv:2503.20783): better answers of a group become likelier.

A answers  N their ids in all
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ayllu.data.pair_loader import Padded
from ayllu.errors import TrainingDiverged
from ayllu.model.build import CausalModel
from ayllu.train.answer_logps import id_logps
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.losses import Loss
from ayllu.train.prefer_loss import Tally


@dataclass(frozen=True)
class Scored:
    """Answers on a device, with what they were worth."""

    answers: Padded
    advantages: Tensor                                   # (A,)
    engine: Tensor                                       # (N,) log-probabilities under which they were drawn
    old: Tensor | None                                   # (N,) of the training before its first update; None: of now
    base: Tensor | None                                  # (N,) of the base, where KL counts


def advantages(rewards: Tensor, group: int, variant: str) -> Tensor:
    """(A,) each answer's reward less the mean of its group, and over its standard deviation (arXiv:2402.03300, section
    4.1.2); Dr. GRPO leaves the division out (arXiv:2503.20783, section 3.1). Equal rewards teach nothing."""
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if variant == "grpo":
        centred = centred / (grouped.std(1, keepdim=True) + 1e-4)
    return centred.flatten()


def grpo_loss(model: CausalModel, batch: Scored, config: GrpoConfig, tally: Tally) -> Loss:
    """The sum over answers of -min(r A, clip(r) A) + kl k3 (arXiv:2402.03300, eq. 3), r an id's ratio of probabilities.

    GRPO takes the mean over an answer's ids; Dr. GRPO their sum over max_tokens, the same for all answers.
    """
    answers = batch.answers
    logps = id_logps(model, answers)                                          # (N,)
    if batch.old is None:
        check_engine(logps.detach(), batch.engine, config, tally)
    old = logps.detach() if batch.old is None else batch.old
    each = clipped(logps, old, batch.advantages[answers.owner], config, tally)
    if batch.base is not None:
        apart = k3(logps, batch.base)
        tally.add("kl", apart)
        each = each + config.kl * apart
    by_answer = torch.zeros_like(answers.sizes).index_add(0, answers.owner, each)
    by_answer = by_answer / (answers.sizes if config.variant == "grpo" else config.max_tokens)
    return Loss(by_answer.sum(), torch.tensor(float(len(by_answer)), device=by_answer.device), by_answer.detach())


def clipped(logps: Tensor, old: Tensor, advantage: Tensor, config: GrpoConfig, tally: Tally) -> Tensor:
    """(N,) -min(r A, clip(r) A) (arXiv:1707.06347, eq. 7)."""
    ratio = (logps - old).exp()
    within = ratio.clamp(1 - config.clip, 1 + (config.clip_high or config.clip))
    tally.add("clipped", (within * advantage < ratio * advantage).float())
    return -torch.minimum(ratio * advantage, within * advantage)


def k3(logps: Tensor, base: Tensor) -> Tensor:
    """(N,) base / model - log(base / model) - 1, an estimate of KL(model || base) that is never negative
    (arXiv:2402.03300, eq. 4; J. Schulman, "Approximating KL divergence")."""
    off = base - logps
    return off.exp() - off - 1


def check_engine(logps: Tensor, engine: Tensor, config: GrpoConfig, tally: Tally) -> None:
    """The engine draws from the very weights that are trained, so both must hold each id to be as likely."""
    gap = (logps - engine).abs()
    tally.add("engine_gap", gap)
    if gap.mean() > config.off_by:
        raise TrainingDiverged(f"the engine's log-probabilities are {gap.mean():.2g} away from the training's on "
                               f"average, and {config.off_by:g} is allowed: what is learned from was drawn from "
                               "another model; train with loop.precision=float32, or set tolerance if you know why")
