"""Words that say something: one matcher over the lexicon in words.toml, for English and Chinese, linear and so exactly
explained. The lexicon was written for Ayllu and learned from no data set; docs/analyse.md has what it scores.
"""

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

FILE, LISTS = Path(__file__).parent / "words.toml", Path(__file__).parent / "lists.toml"
SLOPE = 0.55                                             # of the probability
NEGATED, MORE, LESS, AFTER_BUT = -0.7, 1.4, 0.7, 1.5     # what a word's weight is multiplied by
REACH = {"en": 3, "zh": 2}                               # matched or plain tokens that a negation may stand before
EMOTIONS = ("joy", "anger", "sadness", "fear", "surprise", "disgust")
_TOKEN = re.compile(r"(?P<en>[A-Za-z0-9][A-Za-z0-9'%’-]*)|(?P<zh>[\u3400-\u9fff]+)|(?P<end>[.!?;,\n。！？；，…~～]+)")
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"), ("ly", ""))


@dataclass
class Entry:
    """What the lexicon knows of one word."""

    polarity: float | None = None
    modifies: Literal["negate", "more", "less", "but"] | None = None
    emotions: list[str] = field(default_factory=list)
    toxic: float = 0.0
    spam: float = 0.0
    aspects: list[str] = field(default_factory=list)


class Found(NamedTuple):
    """A word of the lexicon at text[start:end], in its clause; `weight` is its polarity there, 0 where it has none."""

    start: int
    end: int
    entry: Entry
    clause: int
    weight: float


class _Word(NamedTuple):
    start: int
    end: int
    entry: Entry | None
    clause: int
    is_han: bool


@cache
def entries() -> dict[str, Entry]:
    """All words; phrases have single spaces between."""
    found: dict[str, Entry] = {}
    for groups in tomllib.loads(FILE.read_text(encoding="utf-8")).values():
        for kind, table in groups.items():
            for name, words in table.items():
                for word in words.split():
                    _add(found.setdefault(word.replace("_", " ").lower(), Entry()), kind, name)
    return found


@cache
def listed() -> dict[str, list[str]]:
    """Lists of words that aren't weighed, by name."""
    return {name: words.split() for name, words in tomllib.loads(LISTS.read_text(encoding="utf-8")).items()}


def _add(entry: Entry, kind: str, name: str) -> None:
    match kind:
        case "polarity":
            if entry.polarity is None:
                entry.polarity = float(name)
        case "modify":
            entry.modifies = name                        # type: ignore[assignment]
        case "emotion":
            entry.emotions.append(name)
        case "toxic":
            entry.toxic = float(name)
        case "spam":
            entry.spam = float(name)
        case _:
            entry.aspects.append(name)


@cache
def _longest() -> tuple[int, int]:
    """The most words of an English phrase, and the most characters of a Chinese one."""
    return (max(word.count(" ") + 1 for word in entries()), max(len(word) for word in entries() if word[0] > "\u3400"))


@cache
def _english(word: str) -> Entry | None:
    """The entry of a word or of what it is a form of."""
    known = entries()
    if found := known.get(word):
        return found
    for ending, instead in _ENDINGS:
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and len(stem) > 2 and (found := known.get(stem)):
            return found
        if word.endswith(ending) and len(stem) > 3 and stem[-1:] == stem[-2:-1] and (found := known.get(stem[:-1])):
            return found
    return None


def _split(text: str) -> list[_Word]:
    """The longest words of the lexicon, and what stands between them."""
    out: list[_Word] = []
    clause, tokens = 0, list(_TOKEN.finditer(text))
    most = _longest()[0]
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token["end"] is not None:
            clause += 1
        elif token["zh"] is not None:
            out += _chinese(token["zh"], token.start(), clause)
        else:
            taken, entry = _phrase(tokens[i:i + most])
            out.append(_Word(token.start(), tokens[i + taken - 1].end(), entry, clause, False))
            i += taken - 1
        i += 1
    return out


def _phrase(tokens: Sequence[re.Match[str]]) -> tuple[int, Entry | None]:
    words = []
    for token in tokens:
        if token["en"] is None:
            break
        words.append(token["en"].lower().replace("’", "'"))
    for n in range(len(words), 1, -1):
        if found := entries().get(" ".join(words[:n])):
            return n, found
    return 1, _english(words[0])


def _chinese(run: str, at: int, clause: int) -> list[_Word]:
    out, known, most = [], entries(), _longest()[1]
    place = 0
    while place < len(run):
        for n in range(min(most, len(run) - place), 0, -1):
            if entry := known.get(run[place:place + n]):
                out.append(_Word(at + place, at + place + n, entry, clause, True))
                place += n
                break
        else:
            out.append(_Word(at + place, at + place + 1, None, clause, True))
            place += 1
    return out


def read(text: str) -> list[Found]:
    """All words of the lexicon in a text, in order, with what negations and others make of their polarity."""
    words = _split(text)
    out: list[Found] = []
    clause, factor = -1, 1.0
    for i, (start, end, entry, at, _) in enumerate(words):
        if at != clause:
            clause, factor = at, 1.0
        if entry is None:
            continue
        follows = words[i + 1] if i + 1 < len(words) and words[i + 1].start == end else None
        acts = entry.modifies and not (entry.polarity and not (follows and follows.entry and follows.entry.polarity))
        if entry.modifies == "but":
            factor = AFTER_BUT
        weight = 0.0 if acts or entry.polarity is None else entry.polarity * factor * _changed(words, i)
        out.append(Found(start, end, entry, at, weight))
    return out


def _changed(words: Sequence[_Word], i: int) -> float:
    """What the words before one in its clause make of it."""
    factor, word = 1.0, words[i]
    reach = REACH["zh" if word.is_han else "en"]
    for before in words[max(i - reach, 0):i]:
        if before.clause != word.clause or before.entry is None:
            continue
        match before.entry.modifies:
            case "negate":
                factor *= NEGATED
            case "more":
                factor *= MORE if not before.entry.polarity or before.end == word.start else 1.0
            case "less":
                factor *= LESS
    return factor


def positive(found: Sequence[Found]) -> float:
    """The probability that a text is positive rather than negative, from its words; 0.5 where none has a polarity."""
    weights = [one.weight for one in found if one.weight]
    return 1 / (1 + math.exp(-SLOPE * sum(weights) / math.sqrt(len(weights)))) if weights else 0.5


def strength(found: Sequence[Found], kind: Literal["toxic", "spam"]) -> float:
    """From 0 to 1: how much of the lexicon's toxic or spam words there is."""
    return 1 - math.exp(-sum(getattr(one.entry, kind) for one in found) / 2)


def emotions(found: Sequence[Found]) -> dict[str, float]:
    """Each emotion's share of the words that name one; empty where none does. A negated word names none."""
    named = [name for one in found for name in one.entry.emotions if not (one.entry.polarity or 0) * one.weight < 0]
    return {name: named.count(name) / len(named) for name in EMOTIONS if name in named}
