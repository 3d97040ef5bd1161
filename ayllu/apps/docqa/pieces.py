"""A text as the pieces that an answer may begin or end at: words, in Chinese rjieba's, and signs one by one."""

import re

from ayllu.apps.index.words import cutter
from ayllu.data.units import HAN

Place = tuple[int, int]                                  # (start, end) in the text
_PIECE = re.compile(rf"[{HAN}]+|\d+(?:[.,]\d+)*|[^\W\d_{HAN}]+(?:['’-][^\W\d_{HAN}]+)*|\S")
_HAN = re.compile(f"[{HAN}]")


def pieces(text: str) -> list[Place]:
    """Where each lies; white space is in none."""
    found = []
    for match in _PIECE.finditer(text):
        at = match.start()
        for word in cutter().cut(match[0]) if _HAN.match(match[0]) else [match[0]]:
            found.append((at, at + len(word)))
            at += len(word)
    return found
