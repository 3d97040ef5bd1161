"""Content words, key phrases and entities of posts, by rules that can be read: no tagger stands behind them.

Words of Chinese are rjieba's where it is installed, else pairs of characters. Entities are hashtags, addresses, money,
percentages, dates and names of products by their capitals or 《》: what has a form. People are pseudonyms by now.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from ayllu.data.units import chinese_cutter
from ayllu.errors import MissingExtra
from ayllu.text.lexicon import entries, listed

STOP, STOP_ZH = frozenset(listed()["stop_en"]), frozenset(listed()["stop_zh"])
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*[A-Za-z]|[\u3400-\u9fff]+")
_MARK = re.compile(r"\[[a-z-]+-[0-9a-f]{8}\]|https?://\S+|[#＃][\w\u3400-\u9fff]+[#＃]?")
_ENTITIES = {
    "hashtag": re.compile(r"(?<!\w)[#＃]([\w\u3400-\u9fff]{2,40})[#＃]?"),
    "url": re.compile(r"https?://[^\s\u3400-\u9fff，。）)]+"),
    "money": re.compile(r"[$€£¥￥]\s?\d(?:[\d,.]*\d)?|\d[\d,.]*\s?(?:USD|EUR|RMB|dollars?|euros?|元|块钱?|美元)"),
    "percent": re.compile(r"\d+(?:\.\d+)?\s?[%％]"),
    "date": re.compile(r"\d{4}[-/年]\d{1,2}[-/月]\d{1,2}日?|\d{1,2}月\d{1,2}日"),
    "title": re.compile(r"《([^》]{1,40})》"),
    "product": re.compile(r"(?<![.!?]\s)(?<!^)\b([A-Z][A-Za-z]*(?:\s(?:[A-Z][A-Za-z]+|[A-Z]?\d+[A-Za-z]?))+"
                          r"|[A-Z][a-z]+[A-Z]\w*|[A-Z]{1,4}-?\d{1,4}[A-Z]?)\b")}


def words(text: str) -> list[str]:
    """Content words in order, in lower case."""
    out: list[str] = []
    for match in _WORD.finditer(_MARK.sub(" ", text)):
        word = match[0]
        if word[0] > "\u3400":
            out += [w for w in _cut(word) if len(w) > 1 and w not in STOP_ZH]
        elif len(word) > 2 and (low := word.lower().replace("’", "'")) not in STOP:
            out.append(low.removesuffix("'s"))
    return out


def _cut(run: str) -> Sequence[str]:
    cutter = _segmenter()
    return list(cutter(run)) if cutter else [run[i:i + 2] for i in range(len(run) - 1)]


@cache
def _segmenter() -> Any:
    try:
        return chinese_cutter("cutting Chinese").cut
    except MissingExtra:
        return None


def key_phrases(text: str, most: int = 5) -> list[str]:
    """Neighbouring content words that no stop word or mark parts, the longest and most repeated first (after RAKE)."""
    runs = [phrase for part in re.split(r"[^\w\s'’\u3400-\u9fff-]+", _MARK.sub(".", text)) for phrase in _runs(part)]
    counts = Counter(runs)
    known = entries()
    ranked = sorted(counts, key=lambda p: (-counts[p] * min(p.count(" ") + 1 + (p[0] > "\u3400"), 3),
                                           p in known, runs.index(p)))
    return ranked[:most]


def _runs(part: str) -> Iterable[str]:
    run: list[str] = []
    for match in re.finditer(r"[A-Za-z][A-Za-z'’-]*|[\u3400-\u9fff]+|\S", part):
        token = match[0]
        if token[0] > "\u3400":
            if run:
                yield " ".join(run[:3])
                run = []
            yield from (w for w in _cut(token) if len(w) > 1 and w not in STOP_ZH)
        elif len(token) > 2 and token[0].isalpha() and token.lower() not in STOP:
            run.append(token.lower())
        elif run:
            yield " ".join(run[:3])
            run = []
    if run:
        yield " ".join(run[:3])


def entities(text: str) -> list[tuple[str, str]]:
    """(kind, what) of all that has a form, each once."""
    found: dict[tuple[str, str], None] = {}
    for kind, pattern in _ENTITIES.items():
        for match in pattern.finditer(text):
            found.setdefault((kind, (match[1] if match.lastindex else match[0]).strip()))
    return list(found)[:20]


def pieces(text: str) -> list[tuple[int, int]]:
    """Where each word stands, stop words included."""
    out = []
    for match in re.finditer(r"[A-Za-z0-9][\w'’-]*|[\u3400-\u9fff]+|\[[a-z-]+-[0-9a-f]{8}\]", text):
        if match[0][0] <= "\u3400":
            out.append(match.span())
            continue
        at = match.start()
        for word in _cut(match[0]) if _segmenter() else match[0]:
            out.append((at, at + len(word)))
            at += len(word)
    return out
