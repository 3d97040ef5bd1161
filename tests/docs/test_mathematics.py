"""docs/mathematics.md: quoted lines stand where the page says, named tests exist, and each formula that no other test
computes from scratch is computed here, in both languages."""

import math
import re
from pathlib import Path

import pytest
import torch
from quotes import QUOTE, misplaced

from ayllu.checkpoint.load import open_checkpoint
from ayllu.model import account
from ayllu.model.attend import Causal
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.llama import Attention, Llama, Rope, rope_frequencies
from ayllu.model.presets import preset
from ayllu.train.head_loss import softmax_loss
from ayllu.train.muon import orthogonalise
from ayllu.train.schedule import Schedule, factor

ROOT = Path(__file__).parents[2]
NAMES = ("mathematics.md", "mathematics.zh-CN.md")
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in NAMES}
CONFIG = LlamaConfig(dim=24, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=40, vocab_size=30)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES)


@EVERY_PAGE
def test_quoted_lines_stand_where_the_page_says(page):
    assert len(QUOTE.findall(PAGES[page])) == PAGES[page].count("```python") > 20
    assert misplaced(PAGES[page]) == []


def test_both_languages_have_the_same_formulas():
    english, chinese = (re.findall(r"\$\$.*?\$\$", text) for text in PAGES.values())
    assert english == chinese
    assert len(english) > 20


@EVERY_PAGE
def test_no_backslash_that_markdown_takes_away(page):
    """GitHub reads a backslash before punctuation as Markdown's own, also inside a formula."""
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", PAGES[page])
    assert [formula for formula in formulas if re.search(r"\\[!-/:-@\[-`{-~]", formula)] == []


@EVERY_PAGE
def test_the_shapes_in_the_table(page):
    mini, seven = open_checkpoint("ayllu-mini").config, preset("llama2-7b")
    for letter, field in (("V", "vocab_size"), ("D", "dim"), ("L", "n_layers"), ("H", "n_heads"), ("K", "n_kv_heads"),
                          ("E", "head_dim"), ("F", "hidden_dim")):
        row = next(line for line in PAGES[page].splitlines() if line.startswith(f"| ${letter}$ |"))
        assert row.endswith(f"| {getattr(mini, field):,} | {getattr(seven, field):,} |")


# The formulas themselves, number by number.

def turned(x: list[float], position: int) -> list[float]:
    half, out = len(x) // 2, [0.0] * len(x)
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def rotate(x: torch.Tensor, position: int) -> torch.Tensor:
    return Llama(CONFIG).rope(torch.tensor([position]), torch.float64)(x[None, None, None])[0, 0, 0]


def test_a_rotation_feature_by_feature():
    x = torch.randn(8, dtype=torch.float64)
    assert rotate(x, 5).tolist() == pytest.approx(turned(x.tolist(), 5), abs=1e-6)     # angles are float32


def test_only_the_distance_counts():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    assert rotate(q, 9) @ rotate(k, 4) == pytest.approx((q @ rotate(k, -5)).item(), abs=1e-5)


def test_attention_as_the_sums_are_written():
    attention, T, E = Attention(CONFIG), 6, CONFIG.head_dim
    x = torch.randn(1, T, CONFIG.dim)
    ones = torch.ones(1, T, 1, E)
    with torch.no_grad():
        found = attention(x, Rope(ones, 0 * ones), Causal())[0]              # turned by nothing
        q, k, v = (getattr(attention, name)(x)[0].view(T, -1, E) for name in ("wq", "wk", "wv"))
        rows = []
        for t in range(T):
            heads = []
            for h in range(4):
                g = h * 2 // 4
                e = [math.exp(float(q[t, h] @ k[s, g]) / math.sqrt(E)) for s in range(t + 1)]
                heads.append(sum(e[s] / sum(e) * v[s, g] for s in range(t + 1)))
            rows.append(attention.wo(torch.cat(heads)))
    assert torch.allclose(found, torch.stack(rows), atol=1e-6)


def test_frequencies_beyond_the_context():
    plain = [10_000 ** (-2 * i / 8) for i in range(4)]
    assert rope_frequencies(CONFIG)[0].tolist() == pytest.approx(plain)
    linear = CONFIG.model_copy(update={"rope_scaling": RopeScaling(kind="linear", factor=4)})
    assert rope_frequencies(linear)[0].tolist() == pytest.approx([f / 4 for f in plain])
    dynamic = CONFIG.model_copy(update={"rope_scaling": RopeScaling(kind="dynamic", factor=4, original_context=10)})
    base = 10_000 * (4 * 25 / 10 - 3) ** (8 / 6)
    assert rope_frequencies(dynamic, torch.tensor(25))[0].tolist() == pytest.approx(
        [base ** (-2 * i / 8) for i in range(4)], rel=1e-5)
    yarn = CONFIG.model_copy(update={"rope_scaling": RopeScaling(kind="yarn", factor=4)})
    assert rope_frequencies(yarn)[1] == pytest.approx(0.1 * math.log(4) + 1)


def test_the_loss_and_its_gradient():
    u, y, sigma, zeta = [0.5, -1.0, 2.0, 0.1], 2, 0.1, 0.01
    z = sum(math.exp(x) for x in u)
    each, first, second = softmax_loss(torch.tensor([u]), torch.tensor([y]), torch.ones(1), zeta, sigma)
    assert each.item() == pytest.approx(math.log(z) - (1 - sigma) * u[y] - sigma / 4 * sum(u) + zeta * math.log(z)**2)
    _, first, second = softmax_loss(torch.tensor([u]), torch.tensor([y]), torch.ones(1), 0.0, 0.0)
    assert (first * second)[0].tolist() == pytest.approx([math.exp(x) / z - (j == y) for j, x in enumerate(u)])


def test_one_step_of_muons_polynomial():
    m = torch.randn(3, 5)
    x = m / m.norm()
    a, b, c = 3.4445, -4.7750, 2.0315
    once = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    assert torch.allclose(orthogonalise(m, steps=1), once, atol=1e-5)


def test_the_factors_of_the_schedules():
    steps, warmup, f, at = 110, 10, 0.2, 35
    tau = (at - warmup) / (steps - warmup)
    expected = {"constant": 1.0, "linear": f + (1 - f) * (1 - tau),
                "cosine": f + (1 - f) * (1 + math.cos(math.pi * tau)) / 2,
                "inverse_sqrt": max(f, math.sqrt(warmup / (at + 1)))}
    for kind, value in expected.items():
        schedule = Schedule.model_validate({"kind": kind, "warmup_steps": warmup, "floor": f})
        assert factor(schedule, at, steps) == pytest.approx(value)
    wsd = Schedule(kind="wsd", warmup_steps=warmup, floor=f, decay_steps=40)
    assert factor(wsd, at, steps) == 1.0
    assert factor(wsd, 90, steps) == pytest.approx(f + (1 - f) * (1 - math.sqrt(20 / 40)))


def test_what_it_costs():
    shape, T = preset("llama2-7b"), 4096
    n, attention = account.matmul_parameters(shape), 4 * shape.n_layers * shape.n_heads * shape.head_dim
    assert account.forward_flops(shape, 100) == 2 * n + attention * 100
    assert account.training_flops(shape, T) == pytest.approx(3 * (2 * n + attention * (T + 1) / 2))
    assert account.kv_bytes(shape, "bfloat16") == 2 * 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
