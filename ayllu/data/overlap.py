"""Contamination: which documents share a long run of units with a text that models are evaluated on.

A run of 13 words (13 characters of Chinese), as GPT-3 was checked (Brown et al. 2020, arXiv:2005.14165, appendix C).
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field

from ayllu.config import Settings
from ayllu.data.units import hash_ngrams, unit_hashes


class Overlap(Settings):
    """What documents are compared with; nothing by default."""

    files: tuple[str, ...] = ()                          # evaluation texts, files or folders; paths as sources have
    fields: tuple[str, ...] = ()                         # of their rows, each a text of its own; none: every text
    n: int = Field(default=13, ge=2)                     # units of a run
    action: Literal["drop", "report"] = "drop"


def index(texts: Iterable[str], n: int) -> tuple[np.ndarray, int]:
    """Sorted hashes of all runs of n units, and how many texts are too short to have one."""
    found, short = [np.empty(0, dtype=np.uint64)], 0
    for text in texts:
        grams = hash_ngrams(unit_hashes(text), n)
        short += len(grams) == 0
        found.append(grams)
    return np.unique(np.concatenate(found)), short


def shared_runs(text: str, known: np.ndarray, n: int) -> int:
    """How many of a document's runs of n units are in an index."""
    if not len(known):
        return 0
    grams = hash_ngrams(unit_hashes(text), n)
    places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
    return int((known[places] == grams).sum())
