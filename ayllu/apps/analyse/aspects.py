"""What exactly is praised or blamed: aspects (words of the lexicon, and nouns that opinions stand beside) with the
sentiment of their clause; and brands, whose mentions make a share of voice."""

import re
from collections.abc import Sequence

from ayllu.apps.analyse.lexicon import Found, entries, positive
from ayllu.apps.analyse.phrases import STOP
from ayllu.apps.analyse.phrases import words as content

# "the battery is", "its camera was", "my order never": what an opinion is about stands before it
_ENGLISH = re.compile(r"\b(?:the|its|my|this|their|your)\s+([a-z][a-z-]{2,20})\s+(?:is|was|are|were|has|keeps?|looks?|"
                      r"feels?|sounds?|never|still|doesn't|didn't)\b", re.IGNORECASE)
_CHINESE = re.compile(r"([\u4e00-\u9fff]{2,6}?)"
                      r"(?:真的|实在|有点|比较|非常|特别|十分|一直|也|都|还|很|太|真|超|挺)+[\u4e00-\u9fff]")


def aspects(text: str, found: Sequence[Found]) -> dict[str, float]:
    """Aspect to the probability that what is said of it is positive; only where its clause has an opinion."""
    by_clause: dict[int, list[Found]] = {}
    for one in found:
        by_clause.setdefault(one.clause, []).append(one)
    out: dict[str, list[float]] = {}
    before: set[str] = set()                             # "The battery died. Awful.": awful is the battery
    for clause in by_clause.values():
        opinions = [one for one in clause if one.weight]
        named = {name for one in clause for name in one.entry.aspects}
        if opinions and not named:
            named = _nouns(text[max(clause[0].start - 30, 0):clause[-1].end + 1])
        for name in (named or before) if opinions else ():
            out.setdefault(name, []).append(positive(opinions))
        before = named or before
    return {name: sum(values) / len(values) for name, values in out.items()}


def _nouns(part: str) -> set[str]:
    known = entries()
    found = {match[1].lower() for match in _ENGLISH.finditer(part)}
    found |= {words[-1] for match in _CHINESE.finditer(part) if (words := content(match[1]))}
    return {word for word in found if word not in known and word not in STOP}


def brands(text: str, named: Sequence[str]) -> list[str]:
    """Which of the brands are named; letters' case doesn't count, and a Latin name stands as a word of its own."""
    low = text.lower()
    return [name for name in named if (name.lower() in low if name[0] > "\u3000" else
                                       re.search(rf"(?<![A-Za-z0-9]){re.escape(name.lower())}(?![A-Za-z0-9])", low))]
