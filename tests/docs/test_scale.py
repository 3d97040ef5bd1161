"""docs/scale.md: its tables are what the formulas say, and its formulas are those of the code."""

from pathlib import Path

import pytest
from scripts import load_script

from ayllu.model.account import layer_bytes
from ayllu.model.presets import preset

DOCS = Path(__file__).parents[2] / "docs"
scale_tables = load_script("docs/scale_tables.py")


@pytest.mark.parametrize("page", scale_tables.PAGES)
def test_the_tables_are_computed(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count("<!-- table ") == len(scale_tables.TABLES) == text.count("<!-- end -->")
    assert scale_tables.filled(text, scale_tables.PAGES[page]) == text, "run python docs/scale_tables.py"
    assert scale_tables.filled(text.replace("| 512 × 1 |", "| 511 × 1 |"), scale_tables.PAGES[page]) == text


@pytest.mark.parametrize("tensor", [1, 8])
def test_what_a_layer_keeps_is_the_formula_of_the_page(tensor):
    c = preset("llama2-70b")
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    assert layer_bytes(c, True, tensor) == 26 * c.dim + 8 + (4 * c.n_heads + 4 * q + 4 * kv + 8 * c.hidden_dim) / tensor


def test_seven_needs_no_recomputing_and_seventy_at_least_32():
    for name, recomputes, least in (("llama2-7b", False, 8), ("llama2-70b", True, 32)):
        fitting = [r.count for r, s in scale_tables.layouts(name)
                   if s.memory <= scale_tables.LIMIT and r.recomputes == recomputes]
        assert min(fitting) == least
