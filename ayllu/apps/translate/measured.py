"""Which models were measured on which pair of languages: measured.toml, written by benchmarks/translate_texts.py."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ayllu.apps.translate.languages import Pair

FILE = Path(__file__).with_name("measured.toml")


def measured(model: str, pair: Pair) -> dict[str, Any] | None:
    """The scores of a model on a pair (chrF and BLEU with intervals, by set); None: nobody measured it."""
    return all_of(model).get(f"{pair.source}-{pair.target}")


@cache
def all_of(model: str) -> dict[str, Any]:
    """The same for each pair, by "en-zh"."""
    found: dict[str, Any] = tomllib.loads(FILE.read_text(encoding="utf-8")).get(model, {}) if FILE.is_file() else {}
    return found


def said(model: str, pair: Pair) -> str:
    """One line for a person."""
    found = measured(model, pair)
    if found is None:
        return f"{model} was never measured on {pair}: read what it wrote"
    scores = ", ".join(f"{name} chrF {one['chrf']:.1f} ({one['chrf_low']:.1f} to {one['chrf_high']:.1f})"
                       for name, one in found.items())
    return f"{model} on {pair}, measured: {scores}"
