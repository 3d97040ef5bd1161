"""docs/masks.md: its mixture is one, and its tables name every objective and setting that there is."""

import re
import tomllib
from pathlib import Path

import pytest

from ayllu.data.batches import PackingConfig
from ayllu.data.masks import Causal, FillIn, Mixture, Prefix, Spans, Tokens, name

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["masks.md", "masks.zh-CN.md"])
def test_the_mixture_and_the_settings(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    recipe = tomllib.loads(block)
    mixture = Mixture.model_validate(recipe["masks"])
    assert PackingConfig.model_validate(recipe["packing"]).kind == "best_fit"
    assert [name(part) for part in mixture.parts] == ["causal", "spans-r", "tokens"]
    for part in (Causal, Prefix, Spans, FillIn, Tokens):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{part().kind}` |")]
        named = set(re.findall(r"`(\w+)`", row.split("|")[3]))
        assert named <= set(part.model_fields)
        assert set(part.model_fields) - {"kind", "weight"} <= named | {"attention"}
