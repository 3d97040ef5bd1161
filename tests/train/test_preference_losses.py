"""Each loss of preferences against its paper's formula, written out here with plain numbers, and its gradient against
differences."""

import math

import pytest
import torch

from ayllu.train import preference_losses as losses

CHOSEN = torch.tensor([-12.0, -3.5, -40.0, -0.7], dtype=torch.float64)
REJECTED = torch.tensor([-11.0, -9.0, -38.5, -6.0], dtype=torch.float64)


def sigma(x):
    return 1 / (1 + math.exp(-x))


def by_hand(name, c, r):
    match name:
        case "dpo":
            return -math.log(sigma(0.3 * (c - r)))
        case "cdpo":
            return -0.8 * math.log(sigma(0.3 * (c - r))) - 0.2 * math.log(1 - sigma(0.3 * (c - r)))
        case "ipo":
            return (c - r - 1 / (2 * 0.3)) ** 2
        case "simpo":
            return -math.log(sigma(0.3 * c - 0.3 * r - 0.5))
        case "orpo":
            odds = [math.exp(x) / (1 - math.exp(x)) for x in (c, r)]
            return -c - 0.3 * math.log(sigma(math.log(odds[0] / odds[1])))
        case "bradley_terry":
            return -math.log(math.exp(c) / (math.exp(c) + math.exp(r + 0.5)))


OURS = {"dpo": lambda c, r: losses.dpo(c, r, 0.3), "cdpo": lambda c, r: losses.dpo(c, r, 0.3, 0.2),
        "ipo": lambda c, r: losses.ipo(c, r, 0.3), "simpo": lambda c, r: losses.simpo(c, r, 0.3, 0.5),
        "orpo": lambda c, r: losses.orpo(c, r, 0.3), "bradley_terry": lambda c, r: losses.bradley_terry(c, r, 0.5)}


@pytest.mark.parametrize("name", OURS)
def test_it_is_the_formula_of_the_paper(name):
    wanted = [by_hand(name, c, r) for c, r in zip(CHOSEN.tolist(), REJECTED.tolist(), strict=True)]
    # exact but for rounding; orpo's odds are written with the least 1 - P that float32 can tell from 0
    torch.testing.assert_close(OURS[name](CHOSEN, REJECTED), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6,
                               atol=1e-7)
    inputs = [x.clone().requires_grad_() for x in (CHOSEN, REJECTED)]
    assert torch.autograd.gradcheck(lambda c, r: OURS[name](c, r), inputs)


def test_kto_weighs_what_is_above_its_zero():
    ratio, good = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), torch.tensor([True, False, False])
    found = losses.kto(ratio, good, torch.tensor(0.25, dtype=torch.float64), beta=0.4, good_weight=1.5, bad_weight=0.5)
    wanted = [1.5 * (1 - sigma(0.4 * (0.5 - 0.25))), 0.5 * (1 - sigma(0.4 * (0.25 + 1.0))),
              0.5 * (1 - sigma(0.4 * (0.25 - 2.0)))]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert losses.kto_zero(torch.tensor([-3.0, 1.0])) == 0
    assert losses.kto_zero(torch.tensor([3.0, 1.0])) == 2


def test_odds_stay_finite_at_both_ends():
    log_p = torch.tensor([-1e-9, -1e-3, -1.0, -30.0, -1e4], requires_grad=True)
    found = losses.log_odds(log_p)
    wanted = torch.tensor([math.log(math.exp(x) / -math.expm1(x)) for x in (-1e-3, -1.0)])
    torch.testing.assert_close(found[1:3], wanted)
    torch.testing.assert_close(found[3:], log_p[3:])
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(log_p.grad).all()
