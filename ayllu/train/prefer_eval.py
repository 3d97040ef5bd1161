"""What a model makes of held-out preferences, with intervals: is the better answer the likelier one?

Two questions are answered. Of likelihood: log p(chosen) > log p(rejected), as sums and as means over ids; it can be
asked of any model, also before training. Of rewards: what the method's loss compares; it begins at a draw where the
reference is the model itself. A tie counts as one half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ayllu.data.pair_loader import padded
from ayllu.data.pairs import Answer, Compared
from ayllu.evaluate.intervals import Interval, bootstrap, bootstrap_mean, mean
from ayllu.model.build import CausalModel
from ayllu.train.answer_logps import answer_logps
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_loss import pair_losses
from ayllu.train.preference_losses import kto, kto_zero


def wins(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """1 where the better is larger, 0 where it is smaller, one half where they are equal."""
    return (1 + np.sign(better - worse)) / 2


@torch.no_grad()
def row_logps(model: CausalModel, rows: Sequence[Compared], others: Sequence[Answer], n: int, device: torch.device,
              autocast: torch.dtype | None) -> np.ndarray:
    """(rows, 3) log-probabilities of the better answer, the worse and the crossed one; 0 where there is none."""
    model.eval()
    out = np.zeros((len(rows), 3), dtype=np.float32)
    slots = [(row, side, answer) for row, one in enumerate(rows) for side, answer in enumerate((one.good, one.bad))
             if answer is not None] + [(row, 2, answer) for row, answer in enumerate(others)]
    slots.sort(key=lambda slot: len(slot[2].ids))        # answers of a length lie together
    for some in (slots[i:i + 2 * n] for i in range(0, len(slots), 2 * n)):
        with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            found = answer_logps(model, padded([a for _, _, a in some], [True] * len(some), None, device))
        for (row, side, _), value in zip(some, found.tolist(), strict=True):
            out[row, side] = value
    model.train()
    return out


@dataclass(frozen=True)
class Judged:
    """A model's log-probabilities of rows, beside the reference's."""

    rows: Sequence[Compared]
    logps: np.ndarray                                    # (rows, 3)
    reference: np.ndarray                                # (rows, 3)

    @property
    def pairs(self) -> list[int]:
        """The rows that have both answers."""
        return [n for n, row in enumerate(self.rows) if row.good is not None and row.bad is not None]

    @property
    def sizes(self) -> np.ndarray:
        """(rows, 2) ids of both answers; 1 where there is none."""
        return np.array([[1 if a is None else a.size for a in (row.good, row.bad)] for row in self.rows])

    def rewards(self, config: PreferConfig) -> np.ndarray:
        """(rows, 2), as prefer_loss.rewards has them."""
        plain = self.logps[:, :2] - (self.reference[:, :2] if config.has_reference else 0)
        return config.strength * plain / (1 if config.method in ("dpo", "kto") else self.sizes)

    def likelier(self, by_id: bool = False) -> np.ndarray:
        """(pairs,) whether the better answer is the likelier, as a sum or by id."""
        found = (self.logps[:, :2] / (self.sizes if by_id else 1))[self.pairs]
        return wins(found[:, 0], found[:, 1])

    def right(self, config: PreferConfig) -> np.ndarray:
        """(pairs,) whether the better answer has the larger reward."""
        found = self.rewards(config)[self.pairs]
        return wins(found[:, 0], found[:, 1])

    def loss(self, config: PreferConfig) -> float:
        """The mean of the training loss over these rows."""
        log_p, known = (torch.from_numpy(x.astype(np.float64)) for x in (self.logps, self.reference))
        if config.method != "kto":
            each = pair_losses(log_p[:, :2].T, known[:, :2].T, torch.from_numpy(self.sizes).T, config)
            return each.mean().item()
        there = [(n, side) for n, row in enumerate(self.rows) for side in (0, 1)
                 if (row.good, row.bad)[side] is not None]
        ratio = log_p - known
        each = kto(torch.stack([ratio[n, side] for n, side in there]), torch.tensor([side == 0 for _, side in there]),
                   kto_zero(ratio[:, 2]), config.strength, config.good_weight, config.bad_weight)
        return each.mean().item()


def results(judged: Judged, config: PreferConfig) -> dict[str, float]:
    """One row of metrics."""
    rewards = judged.rewards(config)
    there = [np.array([a is not None for a in side]) for side in zip(*((r.good, r.bad) for r in judged.rows),
                                                                     strict=True)]
    out = {"held_out": judged.loss(config)}
    for side, name in enumerate(("chosen", "rejected")):
        if there[side].any():
            out[f"held_out_reward_{name}"] = float(rewards[there[side], side].mean())
    if judged.pairs:
        out["held_out_margin"] = float((rewards[judged.pairs, 0] - rewards[judged.pairs, 1]).mean())
        out |= _told("held_out_accuracy", bootstrap_mean(judged.right(config), samples=config.resamples))
    return out


def before_and_after(before: Judged, after: Judged, config: PreferConfig) -> dict[str, float]:
    """How often the better answer is the likelier one, of the base and of what was trained, on the same pairs."""
    out: dict[str, float] = {"held_out_pairs": len(after.pairs)}
    for by_id, name in ((False, "likelihood_accuracy"), (True, "likelihood_accuracy_by_id")):
        was, now = before.likelier(by_id), after.likelier(by_id)
        for what, values in (("before", was), ("after", now)):
            out |= _told(f"{name}_{what}", bootstrap_mean(values, samples=config.resamples))
        out |= _told(f"{name}_gain", bootstrap(mean(now - was), len(now), samples=config.resamples))
    return out


def _told(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}

