"""Rules that say whether a document is worth learning from; None ("off" in a recipe) switches a threshold off.

After Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), C4 (arXiv:1910.10683, section 2.2) and FineWeb
(arXiv:2406.17557, section 3.5). Chinese is written without spaces, so lengths count characters there, an n-gram of
words is one of 2n characters (a Chinese word has about two), and the word length isn't judged. Where we depart from the
papers: no upper length, since a book may be one document; FineWeb's rules about lines, which would drop poems and
lists, are off until set; n-grams are counted in the first `ngram_units` units.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from ayllu.config import Settings
from ayllu.data.repeats import repeated_share, repeats, top_share
from ayllu.data.units import count_letters, is_chinese, unit_hashes, units

_BULLET = re.compile(r"\s*[-*•·●○■□▪◦‣–]")
_ELLIPSIS = ("...", "…")
_TERMINAL = (".", "!", "?", '"', "'", "”", "’", ":", ";", "。", "！", "？", "…", "」", "』", "：", "；")
_SIGNS = "，。、！？；：“”‘’《》（）「」『』…—·,.!?;:()\"'"
_STOP_WORDS = {"en": frozenset({"the", "be", "to", "of", "and", "that", "have", "with"}),
               "zh": frozenset("的是在了不一有人我他之也而其以者于為为")}


class Quality(Settings):
    """The rules' thresholds. Ratios are between 0 and 1."""

    min_words: int | None = 50                           # Gopher
    min_characters_zh: int | None = 80                   # of Chinese text, in place of min_words
    max_words: int | None = None                         # Gopher: 100,000
    mean_word_length: tuple[float, float] | None = (3.0, 10.0)               # Gopher; not for Chinese
    max_symbols: float | None = 0.1                      # Gopher: hash marks and ellipses for each word
    max_bullet_lines: float | None = 0.9                 # Gopher
    max_ellipsis_lines: float | None = 0.3               # Gopher
    min_alphabetic: float | None = 0.8                   # Gopher: words with a letter; for Chinese: characters that are
    min_stop_words: int | None = 2                       # Gopher: different ones; for English and Chinese only
    max_repeated_lines: float | None = 0.3               # Gopher: lines that stood before
    max_repeated_line_characters: float | None = 0.2
    max_top_ngram: dict[int, float] = Field(default={2: 0.2, 3: 0.18, 4: 0.16})          # Gopher: share of units in
    max_repeated_ngrams: dict[int, float] = Field(                                       # the most frequent n-gram,
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})                 # or in any that repeats
    ngram_units: int = Field(default=10_000, gt=0)
    banned_phrases: tuple[str, ...] = ("lorem ipsum",)   # C4
    min_terminal_lines: float | None = None              # FineWeb: 0.12, lines that end as sentences do
    max_short_lines: float | None = None                 # FineWeb: 0.67, lines under short_line characters
    short_line: int = 30                                 # halved for Chinese

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value         # TOML has no word for None


def first_broken(text: str, language: str, rules: Quality) -> tuple[str, float] | None:
    """The first rule that a document breaks, with the value found; None for a good one."""
    return next(_broken(text, language, rules), None)


def _broken(text: str, language: str, rules: Quality) -> Iterator[tuple[str, float]]:
    found, chinese = units(text), is_chinese(text)
    least = rules.min_characters_zh if chinese else rules.min_words
    if least is not None and len(found) < least:
        yield "min_characters_zh" if chinese else "min_words", len(found)
    if rules.max_words is not None and len(found) > rules.max_words:
        yield "max_words", len(found)
    if not found:
        return
    yield from _word_rules(text, found, chinese, language, rules)
    yield from _line_rules([line for line in text.split("\n") if line.strip()], chinese, rules)
    yield from _ngram_rules(unit_hashes(text)[:rules.ngram_units], 2 if chinese else 1, rules)


def _word_rules(text: str, found: Sequence[str], chinese: bool, language: str,
                rules: Quality) -> Iterator[tuple[str, float]]:
    if rules.mean_word_length and not chinese:
        least, most = rules.mean_word_length
        mean, with_signs = fmean(map(len, found)), fmean(map(len, text.split()))         # noise is one long word
        if mean < least or with_signs > most:
            yield "mean_word_length", mean if mean < least else with_signs
    symbols = (text.count("#") + text.count("...") + text.count("…")) / len(found)
    if rules.max_symbols is not None and symbols > rules.max_symbols:
        yield "max_symbols", symbols
    words, with_letters = _characters(text) if chinese else _words(text)
    letters = with_letters / max(words, 1)
    if rules.min_alphabetic is not None and letters < rules.min_alphabetic:
        yield "min_alphabetic", letters
    known = _STOP_WORDS.get("zh" if chinese else language)
    if rules.min_stop_words is not None and known and len(known.intersection(found)) < rules.min_stop_words:
        yield "min_stop_words", len(known.intersection(found))
    lower = text.lower()
    for phrase in rules.banned_phrases:
        if phrase in lower:
            yield "banned_phrases", lower.count(phrase)


def _characters(text: str) -> tuple[int, int]:
    """How many characters there are beside spaces and common signs, and how many of them are letters."""
    solid = "".join(text.split())
    return len(solid) - sum(map(solid.count, _SIGNS)), count_letters(solid)


def _words(text: str) -> tuple[int, int]:
    """How many words there are between spaces, and how many of them have a letter."""
    words = text.split()
    return len(words), sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)


def _line_rules(lines: list[str], chinese: bool, rules: Quality) -> Iterator[tuple[str, float]]:
    seen: Counter[str] = Counter(line.strip() for line in lines)
    again = sum(count - 1 for count in seen.values())
    again_characters = sum((count - 1) * len(line) for line, count in seen.items())
    characters = sum(count * len(line) for line, count in seen.items())
    short = rules.short_line / (2 if chinese else 1)
    n = len(lines)
    most = (("max_bullet_lines", sum(bool(_BULLET.match(x)) for x in lines) / n),
            ("max_ellipsis_lines", sum(x.rstrip().endswith(_ELLIPSIS) for x in lines) / n),
            ("max_repeated_lines", again / n),
            ("max_repeated_line_characters", again_characters / characters),
            ("max_short_lines", sum(len(x.strip()) < short for x in lines) / n))
    for name, value in most:
        limit = getattr(rules, name)
        if limit is not None and value > limit:
            yield name, value
    ends = sum(x.rstrip().endswith(_TERMINAL) for x in lines) / n
    if rules.min_terminal_lines is not None and ends < rules.min_terminal_lines:
        yield "min_terminal_lines", ends


def _ngram_rules(hashes: np.ndarray, factor: int, rules: Quality) -> Iterator[tuple[str, float]]:
    """Shares of units rather than of characters, so that long words count no more than short ones."""
    found = repeats(hashes, {n * factor for n in (*rules.max_top_ngram, *rules.max_repeated_ngrams)})
    for name, limits, share_of in (("max_top_ngram", rules.max_top_ngram, top_share),
                                   ("max_repeated_ngrams", rules.max_repeated_ngrams, repeated_share)):
        for n, limit in limits.items():
            share = share_of(found[n * factor], n * factor, len(hashes))
            if share > limit:
                yield f"{name}.{n}", share
