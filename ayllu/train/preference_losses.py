"""Losses of preferences, as functions of the log-probabilities of whole answers.

B pairs, or answers where a loss takes them one by one
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(B,) -log sigma(beta (log ratio of chosen - log ratio of rejected)) (arXiv:2305.18290, eq. 7).

    A log ratio is log pi(y | x) - log pi_ref(y | x), (B,). `label_smoothing` is the share of pairs that are held to be
    labelled the wrong way round (cDPO, E. Mitchell, "A note on DPO with noisy preferences", eq. 3).
    """
    z = beta * (chosen - rejected)
    return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(B,) (h - 1 / (2 beta))², h the difference of the log ratios (arXiv:2310.12036, eq. 17, where beta is tau).

    The log ratios are means over an answer's ids, as the authors found after publication that they have to be; the
    paper writes sums.
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


def kto(ratio: Tensor, is_good: Tensor, zero: Tensor, beta: float, good_weight: float = 1.0,
        bad_weight: float = 1.0) -> Tensor:
    """(B,) weight (1 - sigma(beta (r - z0))) of good answers, weight (1 - sigma(beta (z0 - r))) of bad ones
    (arXiv:2402.01306, eq. 8, without the constant weights that stand before the difference there).

    `ratio` r (B,) are log ratios; `zero` z0 () is the estimate of KL(pi || pi_ref), and no gradient goes into it.
    """
    off = torch.where(is_good, ratio - zero, zero - ratio)
    weight = torch.where(is_good, good_weight, bad_weight)
    return weight * (1 - torch.sigmoid(beta * off))


def kto_zero(ratio: Tensor) -> Tensor:
    """() z0 from the log ratios (B,) of prompts with others' answers: their mean, and 0 at least (section 4.1)."""
    return ratio.mean().clamp(min=0)


def orpo(chosen: Tensor, rejected: Tensor, weight: float) -> Tensor:
    """(B,) -log P(chosen) - weight log sigma(log odds(chosen) - log odds(rejected)) (arXiv:2403.07691, eq. 6 and 7).

    `chosen` and `rejected` are mean log-probabilities of an answer's ids, log P (eq. 1); odds are P / (1 - P) (eq. 3).
    """
    return -chosen - weight * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(log_p: Tensor) -> Tensor:
    """log(P / (1 - P)), exact also where P is near 1 and where it is near 0; 1 - P is 1e-7 at least."""
    small = torch.log1p(-log_p.clamp(max=-1.0).exp())                         # of P below 1 / e
    large = torch.log((-torch.expm1(log_p.clamp(min=-1.0))).clamp(min=1e-7))
    return log_p - torch.where(log_p < -1.0, small, large)


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """(B,) -log sigma(beta (chosen - rejected) - gamma), of mean log-probabilities (arXiv:2405.14734, eq. 6)."""
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: float = 0.0) -> Tensor:
    """(B,) -log sigma(r(chosen) - r(rejected) - margin), of scores (arXiv:2203.02155, eq. 1; the margin is that of
    arXiv:2307.09288, eq. 2)."""
    return -F.logsigmoid(chosen - rejected - margin)
