"""Small sums, bare and in words, in both languages. A sum (numbers and sign) is held out in all its phrasings."""

import random
from collections.abc import Iterator

from rows import PHRASES, Chat, Language, apart, one

NAMES_OF = {"+": "plus", "-": "minus", "*": "times", "/": "by"}
SHOWN = {"+": "+", "-": "-", "*": "×", "/": "÷"}
ASK, STORIES, THINGS, NAMES, WORDS = (PHRASES["sums"][name] for name in ("ask", "stories", "things", "names", "words"))


def chats(rng: random.Random, copies: int = 1) -> Iterator[Chat]:
    """Every sum in a phrasing of each language, `copies` times; small ones more often, as people ask them."""
    every = [(a, "+", b) for a in range(100) for b in range(100) if a + b <= 100]
    every += [(a, "-", b) for a in range(101) for b in range(a + 1)]
    every += [(a, "*", b) for a in range(1, 13) for b in range(1, 13)] * 6
    every += [(a * b, "/", b) for a in range(1, 13) for b in range(1, 13)] * 6
    every += [(a, sign, b) for a, sign, b in every if max(a, b) <= 20 and sign in "+-"] * 2
    for a, sign, b in every * copies:
        held_out = apart(f"{a}{sign}{b}", 0.03)
        for language in ("en", "zh"):
            yield _sum(a, sign, b, language, held_out, rng)


def _sum(a: int, sign: str, b: int, language: Language, held_out: bool, rng: random.Random) -> Chat:
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[sign]
    shown = rng.choice((SHOWN[sign], sign))
    if rng.random() < 0.3 and a and b:
        who, what = rng.choice(NAMES[language]), rng.choice(THINGS[language])
        asked = one(rng, STORIES[NAMES_OF[sign]][language], a=a, b=b, n=who, t=what)
    else:
        asked = one(rng, ASK[language], a=a, b=b, s=shown, w=WORDS[language][list(NAMES_OF).index(sign)])
    answer = f"{a} {SHOWN[sign]} {b} = {result}"
    return Chat("sum", language, asked, answer, "made", held_out, {"expected": str(result)})
