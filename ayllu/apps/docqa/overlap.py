"""How much of a question a sentence speaks of: its words, weighed by how rare they are, and the form of what is asked.

Every number here that was fitted was fitted on the dev parts of CMRC 2018 and DRCD and on 3 in 10 articles of XQuAD,
none of which are tested on: `python benchmarks/retrieval.py --choose` fits them again and prints them.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ayllu.apps.docqa.defining import Term, term_of
from ayllu.apps.index.words import cutter, words
from ayllu.data.units import HAN
from ayllu.text.lexicon import listed

STOP = frozenset(listed()["asking"])                     # they ask or only join others: no evidence
# What kind of thing is asked for, by the first that fits; and what a sentence looks like that holds one
_ASKS = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in (
    ("date", r"何时|何時|[什甚][么麼]时候|[什甚][么麼]時候|哪一?[年天]|几[年月]|幾[年月]|年份|日期|时间|時間|\bwhen\b"
             r"|\b(what|which) (year|day|date|month|time|century|decade)"),
    ("number", "多少|几[个人次天名岁种层]|幾[個人次天名歲種層]|多[大高长長久远遠]|比例|百分|percent|number of"
               r"|\bhow (many|much|long|far|old|often|tall|large|big|high)\b"),
    ("reason", r"为什么|為什麼|为何|為何|原因|\bwhy\b|\breason"),
    ("person", r"谁|誰|哪位|何人|\bwho(se|m)?\b"),
    ("place", r"哪里|哪裡|哪儿|何处|何處|哪个(国家|城市|地方|省)|哪個(國家|城市|地方)|\bwhere\b")))
_FORMS = {name: re.compile(pattern) for name, pattern in (
    ("date", r"\d{1,4}\s*年|\d月|\d[日號号]|世纪|世紀|年代|[一二三四五六七八九十]月|星期|\b(1\d|20)\d\d\b"
             r"|century|day\b|\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\b"),
    ("number", r"\d|[一二三四五六七八九十百千万萬亿億两兩]|%"
               r"|\b(one|two|three|four|five|six|seven|eight|nine|ten|hundred|thousand|million|billion)\b"),
    ("reason", "因|由于|由於|所以|导致|導致|为了|為了|以便|[Bb]ecause|[Dd]ue to|[Ss]ince|as a result|cause"),
    ("person", "·|[《〈]|[A-Z][a-z]+ [A-Z][a-z]+|人|先生|女士|教授|[父母子女]"),
    ("place", r"[市省县縣国國州城镇鎮区區村岛島山河湖]|位于|位於|在|\b(in|at|near) [A-Z]"))}
_HAN = re.compile(f"([{HAN}]+)")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
NAMES = ("covered", "beside", "passage", "form", "title")            # the features of a sentence
WEIGHTS = np.array([6.0, 3.0, 1.5, 0.5, -2.0])           # of each, for which sentence is the best


@dataclass(frozen=True)
class Question:
    """A question's telling words with their weights, and what kind of thing it asks for ("" where that isn't clear)."""

    text: str
    weights: Mapping[str, float]
    asks: str
    term: Term                                           # of "what is X?", X

    def covered(self, text: str) -> float:
        """The share of its weight that a text holds, 0 to 1."""
        there = sum(self.weights[word] * share for word, share in held(self.weights, text).items())
        return there / (sum(self.weights.values()) or 1.0)


def telling(text: str) -> list[str]:
    """The words that say what a text is about, each once, of English ones the stem: without those that only join or
    ask, and without single Chinese characters, unless there is nothing else."""
    text = unicodedata.normalize("NFKC", text).lower()
    found: dict[str, None] = {}
    for piece in _HAN.split(text):
        han = bool(_HAN.match(piece))
        for word in cutter().cut(piece) if han else words(piece):
            if word not in STOP:
                found[word if han else stem(word)] = None
    return [word for word in found if not _is_han(word)] or list(found)


def held(wanted: Iterable[str], text: str) -> dict[str, float]:
    """How much of each word a text holds: of Chinese ones the share of their pairs, as another sentence may cut
    otherwise; of others all or nothing."""
    text = unicodedata.normalize("NFKC", text).lower()
    there = {stem(word) for word in words(_HAN.sub(" ", text))}
    return {word: _share(word, text) if word > "\u2e80" else float(word in there) for word in wanted}


def _share(word: str, text: str) -> float:
    pairs = [word[i:i + 2] for i in range(len(word) - 1)] or [word]
    return sum(pair in text for pair in pairs) / len(pairs)


def stem(word: str) -> str:
    """An English word without its commonest endings, so that "returned" and "returns" are the same; others as they are.
    """
    if len(word) < 5 or not word.isascii():
        return word[:-1] if len(word) == 4 and word.isascii() and word.endswith("s") and word[-2] != "s" else word
    for ending, instead in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending) + instead
            break
    return word.removesuffix("e") if len(word) > 4 else word


def understood(text: str, weights: Mapping[str, float]) -> Question:
    """A question with the weights of its words in the collection; 1 more for each, as in a collection of few documents
    the words it is about stand in all of them."""
    return Question(text, {word: 1.0 + weights.get(word, 0.0) for word in telling(text)}, asks_for(text), term_of(text))


def asks_for(text: str) -> str:
    """date, number, reason, person, place or ""."""
    return next((name for name, pattern in _ASKS if pattern.search(text)), "")


def has_form(asks: str, sentence: str) -> bool:
    """Whether a sentence holds something of the kind that is asked for."""
    return asks in _FORMS and bool(_FORMS[asks].search(sentence))


def numbers(text: str) -> set[str]:
    """The numbers that a text names in digits."""
    return set(_NUMBER.findall(text))


def features(question: Question, sentence: str, around: str, passage: str) -> np.ndarray:
    """(F,) of one sentence, with the sentences beside it and its whole passage: see NAMES."""
    said = question.covered(sentence)
    beside = question.covered(f"{sentence} {around}")
    whole = question.covered(f"{passage} {around}")
    is_title = sentence.startswith("#") or is_question(sentence)
    return np.array([said, beside - said, whole - beside, has_form(question.asks, sentence), is_title], np.float64)


def is_question(sentence: str) -> bool:
    """Whether a sentence asks: in a list of questions the answer comes after it."""
    return sentence.rstrip("\"'”’）)」』 ").endswith(("?", "？"))


def _is_han(word: str) -> bool:
    return len(word) == 1 and word > "\u2e80"
