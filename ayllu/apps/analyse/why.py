"""Which words mattered: exact where the verdict is linear, else by leaving words out, many at a time."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ayllu.apps.analyse.lexicon import read
from ayllu.apps.analyse.phrases import pieces

MOST = 80                                                # words of a post that are left out in turn


class Mattered(NamedTuple):
    """text[start:end] moved the verdict by so much; above 0 towards the label that is explained."""

    start: int
    end: int
    effect: float


def by_lexicon(text: str) -> list[Mattered]:
    """What each word of the lexicon added to the sum: exact, since the verdict is a sum."""
    return [Mattered(one.start, one.end, round(one.weight, 3)) for one in read(text) if one.weight]


def by_occlusion(score: Callable[[Sequence[str]], Sequence[float]], text: str) -> list[Mattered]:
    """How far the score falls when a word isn't there (occlusion, arXiv:1311.2901, for words); one batch."""
    spans = pieces(text)[:MOST]
    without = [re.sub(r"\s{2,}", " ", text[:start] + text[end:]).strip() or "-" for start, end in spans]
    whole, *rest = score([text, *without])
    return [Mattered(start, end, round(whole - p, 4)) for (start, end), p in zip(spans, rest, strict=True)]
