"""One post read: everything that is said of it by itself.

Which words mattered: exact where the verdict is linear, else by leaving words out, many at a time.

What exactly is praised or blamed: aspects (words of the lexicon, and nouns that opinions stand beside) with the
sentiment of their clause; and brands, whose mentions make a share of voice.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ayllu.apps.analyse.config import SENTIMENT, TOPIC, Analysis
from ayllu.apps.analyse.names import Pseudonyms
from ayllu.apps.analyse.phrases import STOP, entities, key_phrases, pieces
from ayllu.apps.analyse.phrases import words as content
from ayllu.apps.analyse.posts import Post
from ayllu.apps.analyse.scorers import Scorers, Words
from ayllu.data.language import identify
from ayllu.errors import MissingExtra
from ayllu.text import lexicon
from ayllu.text.lexicon import Found, entries, positive, read

SPAM, TOXIC = 0.6, 0.6                                   # from where a post is called so
_HAN, _KANA, _HANGUL = (re.compile(f"[{chars}]") for chars in ("\u3400-\u9fff", "\u3040-\u30ff", "\uac00-\ud7af"))
_CONTACT = re.compile(r"(?i:微信|vx|威信|qq|电报|telegram|whatsapp)\s*[号:：]?\s*[\w-]{5,}|https?://|www\.")


@dataclass
class Reader:
    """Reads posts, many at a time, as the settings say."""

    settings: Analysis
    people: Pseudonyms = field(default_factory=Pseudonyms)

    def __post_init__(self) -> None:
        self.scorers = Scorers(self.settings)

    def __call__(self, posts: Sequence[Post]) -> list[dict[str, Any]]:
        """A table for each post, ready for JSON."""
        hidden = self.settings.pseudonyms
        texts = [self.people.text(post.text) if hidden else post.text for post in posts]
        positive = self.scorers.sentiment(texts) if texts else []
        others = {name: scorer(texts) for name, scorer in self.scorers.others.items()} if texts else {}
        return [self._row(post, text, p, {name: tables[i] for name, tables in others.items()})
                for i, (post, text, p) in enumerate(zip(posts, texts, positive, strict=True))]

    def _row(self, post: Post, text: str, p: float, labels: dict[str, dict[str, float]]) -> dict[str, Any]:
        found = lexicon.read(text)
        named = {name: max(table, key=lambda label: table[label]) for name, table in labels.items()}
        row: dict[str, Any] = {
            "id": post.id, "time": post.time, "group": post.group,
            "author": self.people.author(post.author) if post.author and self.settings.pseudonyms else post.author,
            "language": language(post.text), "text": text, "positive": round(p, 4), "sentiment": self.verdict(p),
            "emotions": {name: round(share, 3) for name, share in lexicon.emotions(found).items()},
            "toxic": round(lexicon.strength(found, "toxic"), 3), "spam": round(spam(text, found), 3),
            "phrases": key_phrases(text), "entities": [list(one) for one in entities(text)],
            "aspects": {name: round(value, 3) for name, value in aspects(text, found).items()},
            "labels": {name: [label, round(labels[name][label], 4)] for name, label in named.items()}}
        if isinstance(self.scorers.by_name[SENTIMENT], Words):
            self.explain(row)
        if self.settings.topics or TOPIC in named:
            row["topics"] = [named[TOPIC]] if TOPIC in named else given(text, self.settings.topics)
        if self.settings.brands:
            row["brands"] = brands(text, self.settings.brands)
        return row | ({"is_cut": True} if post.is_cut else {})

    def explain(self, row: dict[str, Any]) -> None:
        """Put the words that mattered into a row: of a model's verdict only for rows that are shown, since each word
        costs a reading of the post without it."""
        if row.get("why") is None:
            words = isinstance(self.scorers.by_name[SENTIMENT], Words)
            found = by_lexicon(row["text"]) if words else by_occlusion(self.scorers.sentiment, row["text"])
            row["why"] = [list(one) for one in found]

    def verdict(self, p: float) -> str:
        """positive, negative or neutral."""
        return "neutral" if abs(p - 0.5) < self.settings.neutral else "positive" if p > 0.5 else "negative"


def given(text: str, topics: dict[str, tuple[str, ...]]) -> list[str]:
    """Which of the given topics a text names: by their words, and by the lexicon's words for an aspect of that name."""
    own = {name for one in lexicon.read(text) for name in one.entry.aspects}
    return [name for name, words in topics.items() if name in own or brands(text, [name, *words])]


def spam(text: str, found: Sequence[lexicon.Found]) -> float:
    """From 0 to 1: advertising words, contacts, shouting and repetition."""
    letters = [c for c in text if c.isalpha()]
    shouts = len(letters) > 15 and sum(c.isupper() for c in letters) > 0.6 * len(letters)
    words = text.split()
    repeats = len(words) > 7 and len(set(words)) < len(words) / 2
    signs = 0.35 * bool(_CONTACT.search(text)) + 0.2 * shouts + 0.2 * repeats + 0.15 * (text.count("!") > 3)
    signs += 0.15 * (len(re.findall(r"[#＃]\w", text)) > 4)
    return min(1.0, lexicon.strength(found, "spam") + signs)


def language(text: str) -> str:
    """By the script where it tells, else by py3langid; short Latin texts with English stop words are English."""
    letters = sum(map(str.isalpha, text))
    if not letters:
        return "und"
    if len(_KANA.findall(text)) > 0.1 * letters:
        return "ja"
    if len(_HANGUL.findall(text)) > 0.3 * letters:
        return "ko"
    if len(_HAN.findall(text)) > 0.3 * letters:
        return "zh"
    words = re.findall(r"[a-z']+", text.lower())
    if text.isascii() and words and sum(w in STOP or w in lexicon.entries() for w in words) >= 0.3 * len(words):
        return "en"
    try:
        return identify(text)
    except MissingExtra:
        return "und"


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
