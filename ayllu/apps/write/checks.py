"""What is true of a text, by rules that can be read here: its length, points, forbidden words, repetition, copies, and
the claims that somebody has to check. Nothing here asks a model."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ayllu.apps.write.brief import Brief
from ayllu.apps.write.copies import Copy, Sources
from ayllu.apps.write.measure import HAN, Span, language_of, sentences, units
from ayllu.text.lexicon import listed

REACHED = (0.8, 1.25)                                    # of the length that was asked for
COVERED = 0.6                                            # of a point's words that must occur
N_GRAM = 4                                               # units
REPEATED = 0.15                                          # of all n-grams that may have occurred before
SHORTEST = 4                                             # units of a sentence that counts when it comes again
STOP = frozenset(listed()["common"])
_NUMBER = re.compile(r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|half|\w+teen(?:th)?|"
                     r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|[mb]illions?|dozens?|thirds?|"
                     r"quarters?|twice|doubled?|tripled?|percent)\b|[几数一二两三四五六七八九十百千]+分之|一半|半数|翻[番倍]|"
                     r"[零一二两三四五六七八九十百千]+[多几]?(?:万|亿|年|倍|成|公里|美元|元|人|个百分点|[%％])|"
                     r"[二两三四五六七八九十百千]+[多几]?(?:[个名位次种家天月岁折条项]|小时|分钟)", re.IGNORECASE)
_LISTED = re.compile(r"^\s*(?:第?[\d一二三四五六七八九十]+[.、)）]|\d+$)")


@dataclass(frozen=True)
class Report:
    """Everything that was found; `faults` names the checks that aren't met."""

    length: int
    target: int                                          # 0: none was asked for
    unit: str
    points: list[dict[str, Any]]                         # {"point", "covered", "share"}
    missing: list[str]                                   # keywords that don't occur
    forbidden: list[Span]
    repetition: float                                    # share of n-grams that occurred before
    repeated: list[Span]                                 # sentences that stood before, word for word
    copies: list[Copy]
    claims: list[Span]                                   # sentences with numbers: for a person to check
    unread: str = ""                                     # what of the training text couldn't be compared

    @property
    def faults(self) -> list[str]:
        """Names of checks that aren't met. Claims are no fault: they are to be looked at."""
        low, high = REACHED[0] * self.target, REACHED[1] * self.target
        return [name for name, is_bad in (
            ("length", self.target > 0 and not low <= self.length <= high),
            ("points", any(not p["covered"] for p in self.points)),
            ("keywords", bool(self.missing)), ("forbidden", bool(self.forbidden)),
            ("repetition", self.repetition > REPEATED or bool(self.repeated)),
            ("copies", bool(self.copies))) if is_bad]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "faults": self.faults}


def check(text: str, brief: Brief | None, sources: Sources | None = None) -> Report:
    """All checks of a text (Markdown; headings are no sentences of its own, and aren't counted); without a brief, those
    that need none."""
    body = _without_headings(text)
    found, copies = units(body), sources.copies(body) if sources else []
    return Report(
        length=len(found), target=brief.target if brief else 0,
        unit="characters" if (brief.tongue if brief else language_of(body)) == "zh" else "words",
        points=[_point(point, body) for point in (brief.points if brief else ())],
        missing=[word for word in (brief.keywords if brief else ()) if covered(word, body) < 1],
        forbidden=_forbidden(text, brief.forbidden if brief else ()),
        repetition=round(repetition([unit.text for unit in found]), 4), repeated=_repeated(body),
        copies=copies, claims=claims(body), unread=sources.unread if sources else "")


def repetition(words: list[str], n: int = N_GRAM) -> float:
    """The share of n-grams that are equal to one before them: 0 where all differ."""
    grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def covered(point: str, text: str) -> float:
    """The share of a point's words that the text has: by their stems in English, by pairs of characters in Chinese. It
    tells that they are spoken of, not what is said."""
    wanted = _stems(point)
    return 1.0 if point.casefold() in text.casefold() else len(wanted & _stems(text)) / len(wanted) if wanted else 0.0


def claims(text: str) -> list[Span]:
    """Sentences that state a number: years, counts, shares."""
    return [sentence for sentence in sentences(text) if _NUMBER.search(_LISTED.sub("", sentence.text))]


def _without_headings(text: str) -> str:
    """The same number of characters, so that places stay true."""
    return re.sub(r"^#{1,6}[ \t].*$", lambda m: " " * len(m[0]), text, flags=re.MULTILINE)


def _point(point: str, text: str) -> dict[str, Any]:
    share = covered(point, text)
    return {"point": point, "covered": share >= COVERED, "share": round(share, 3)}


def _forbidden(text: str, forbidden: tuple[str, ...]) -> list[Span]:
    """Whole words in Latin letters (`art` is not in `start`); anywhere in Chinese."""
    found = []
    for word in forbidden:
        edge = r"(?<![^\W_])", r"(?![^\W_])"
        pattern = re.escape(word) if re.search(f"[{HAN}]", word) else edge[0] + re.escape(word) + edge[1]
        found += [Span(m.start(), m.end(), m[0]) for m in re.finditer(pattern, text, re.IGNORECASE)]
    return sorted(found, key=lambda span: (span.start, span.end))


def _repeated(text: str) -> list[Span]:
    seen: Counter[tuple[str, ...]] = Counter()
    found = []
    for sentence in sentences(text):
        words = tuple(unit.text for unit in units(sentence.text))
        if len(words) >= SHORTEST:
            if seen[words]:
                found.append(sentence)
            seen[words] += 1
    return found


def _stems(text: str) -> set[str]:
    found, han = set(), ""
    for unit in [*units(text), Span(0, 0, "")]:
        if re.fullmatch(f"[{HAN}]", unit.text):
            han += unit.text
            continue
        found |= {han[i:i + 2] for i in range(max(1, len(han) - 1))} if han else set()
        han = ""
        if unit.text and unit.text not in STOP:
            found.add(re.sub(r"(?:ing|ed|es|s|ly)$", "", unit.text) if len(unit.text) > 4 else unit.text)
    return found - STOP
