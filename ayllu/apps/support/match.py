"""Which section answers a question, and how sure that is: the share of the question's weight that the section covers.

A question's words weigh by how rare they are in all sections (idf), one that no section has weighs most: so a question
about something else gets little cover whatever else it shares. Synonyms count as the same word, a misspelt word as the
known one that is one edit away (two in long words). Chinese is compared by pairs of neighbouring signs.

BM25 (Robertson et al., Okapi at TREC-3, 1994) over a few thousand sections in memory.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from ayllu.apps.index.words import words
from ayllu.apps.support.phrases import CJK, plain
from ayllu.apps.support.sections import Section

STOP_WORDS = """
a an the i me my you your we us our it its is are was were be been am do does did can could will would shall should may
might must have has had if of to in on at for from by with and or but so as that this these those there here what which
who whom whose where how why any some please tell want need like get got know just also too not no hello hi hey s t m re
ve ll d im ive whats hows id about into than then them they he she him her one thing things now happen happens sell
sells offer"""
VAGUE = frozenset({"something", "anything", "item", "items"})    # of what is asked, and rare where it is answered
STOP = frozenset(STOP_WORDS.split())
STOP_ZH = re.compile("请问|你们|我们|您们|你好|您好|可以|能不能|可不可以|是不是|有没有|怎么办|怎么样|怎样|怎么|如何|"
                     "什么|哪里|哪些|哪个|哪儿|多少|几个|一下|一个|这个|那个|想要|我想|需要|如果|"
                     "吗|呢|吧|啊|呀|的|了|么|我|你|您|在|是|能|要|就|也|都|把|被")
WORD = re.compile(r"§\d+|[a-z0-9]+(?:'[a-z]+)?|[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
LATIN = re.compile(r"(?<![a-z0-9'])[a-z]{4,}(?![a-z0-9'])")
OF_HEADING, OF_QUESTION = 0.25, 0.3                      # what it counts more that a heading has the question's words:
                                                         # by the share of the heading, and by that of the question
OF_BM25 = 0.4                                            # what the words as they are count, beside synonyms and pairs
UNKNOWN, PAIR = 1.5, 0.7                                 # times the weight of a word that no section has, and of a
                                                         # pair of Chinese signs, since many pairs are no word


@dataclass(frozen=True)
class Match:
    """A section with its rank among others (`score`) and how much of the question it covers (0 to 1)."""

    section: Section
    score: float
    confidence: float


class Matcher:
    """All sections, indexed by their words."""

    def __init__(self, sections: Sequence[Section], synonyms: Sequence[Sequence[str]] = ()) -> None:
        self.sections = list(sections)
        self._groups = _groups(synonyms)
        self._bm25 = Bm25([f"{s.title} {s.heading} {s.text}" for s in self.sections])
        self._headings = [set(self.terms(s.heading)) - STOP for s in self.sections]
        self._having: dict[str, list[int]] = {}
        for number, s in enumerate(self.sections):
            for term in set(self.terms(f"{s.title} {s.heading}\n{s.text}")):
                self._having.setdefault(term, []).append(number)
        said = "\n".join([*(f"{s.heading} {s.text}" for s in self.sections), *(w for ws in synonyms for w in ws)])
        self._words = set(LATIN.findall(plain(said))) | STOP
        self._languages = {s.language for s in self.sections}

    def best(self, question: str, language: str | None = None, n: int = 3) -> list[Match]:
        """The sections that answer a question best, the surest first; in its language where there are such."""
        asked = self._asked(question)
        total = sum(asked.values())
        if not total:
            return []
        covered: dict[int, float] = {}
        for term, weight in asked.items():
            for number in self._having.get(term, ()):
                covered[number] = covered.get(number, 0.0) + weight
        lexical = self._bm25.scores(question)
        candidates = [n for n in covered if language not in self._languages
                      or self.sections[n].language in (language, None)]
        top = max((lexical.get(n, 0.0) for n in candidates), default=0.0) or 1.0
        found = []
        for number in candidates:
            section, heading, weight = self.sections[number], self._headings[number], covered[number]
            named = sum(self._idf(t) for t in heading & asked.keys())
            bonus = OF_HEADING * named / (sum(map(self._idf, heading)) or 1) + OF_QUESTION * named / total
            rank = weight / total + bonus + OF_BM25 * lexical.get(number, 0.0) / top
            found.append(Match(section, rank, weight / total))
        return sorted(found, key=lambda m: (-m.score, m.section.source, m.section.start))[:n]

    def cover(self, text: str, known: set[str]) -> float:
        """The share of a text's weight that known terms make up; 1 where it has none."""
        asked = self._asked(text)
        total = sum(asked.values())
        return sum(weight for term, weight in asked.items() if term in known) / total if total else 1.0

    def terms(self, text: str) -> list[str]:
        """Words in one form, synonyms as the number of their group, Chinese in pairs."""
        out = []
        for word in WORD.findall(self._groups(plain(text))):
            if CJK.match(word):
                out += [word] if len(word) == 1 else [word[i:i + 2] for i in range(len(word) - 1)]
            elif word not in VAGUE:
                out.append(word if word[0] == "§" else stem(word))
        return out

    def _asked(self, question: str) -> dict[str, float]:
        """The weight of each term."""
        text = STOP_ZH.sub(" ", self._groups(LATIN.sub(lambda found: self._spelt(found[0]), plain(question))))
        return {term: self._idf(term) * (1 if term in self._having else PAIR if CJK.match(term) else UNKNOWN)
                for term in self.terms(text) if term not in STOP}

    def _idf(self, term: str) -> float:
        n = len(self._having.get(term, ()))
        return math.log(1 + (len(self.sections) - n + 0.5) / (n + 0.5))

    def _spelt(self, word: str) -> str:
        """The known word that a misspelt one most likely means; few get the first letter wrong."""
        if word in self._words or stem(word) in self._having:
            return word
        near = [known for known in self._words if known[0] == word[0] and len(known) > 3
                and abs(len(known) - len(word)) <= 2 and edits(word, known) <= (1 if len(word) < 8 else 2)]
        return max(near, key=lambda known: (SequenceMatcher(None, word, known).ratio(), known), default=word)


def _groups(synonyms: Sequence[Sequence[str]]) -> Callable[[str], str]:
    """Puts the number of its group in the place of each synonym, the longest first."""
    number = {plain(word): i for i, words in enumerate(synonyms) for word in words}
    if not number:
        return lambda text: text
    longest = sorted(number, key=len, reverse=True)
    pattern = re.compile("|".join(f"({_loose(word)})" for word in longest))
    return lambda text: pattern.sub(lambda found: f" §{number[longest[(found.lastindex or 1) - 1]]} ", text)


def _loose(word: str) -> str:
    """A synonym; one of two Latin words with up to two others between them: send [that cup] back."""
    if CJK.search(word):
        return re.escape(word)
    between = r"(?:\W+\w+){0,2}?\W+" if len(word.split()) == 2 and word.endswith((" back", " off", " up")) else r"\W+"
    return rf"(?<!\w){between.join(map(re.escape, word.split()))}(?!\w)"


def stem(word: str) -> str:
    """Endings that rarely change what is meant, taken off: mugs, delivered, shipping."""
    word = word.removesuffix("'s")
    for ending, rest in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word[:-len(ending)] + rest
    return word


def edits(a: str, b: str) -> int:
    """Letters to add, drop, replace or swap with a neighbour (Damerau 1964, restricted)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


K1, B = 1.2, 0.75                                        # as SQLite's FTS5 has them


class Bm25:
    """Texts by their words: how well each fits a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._having: dict[str, dict[int, int]] = {}     # word -> {text: how often}
        self._lengths = []
        for number, text in enumerate(texts):
            counts = Counter(words(text))
            self._lengths.append(counts.total())
            for word, n in counts.items():
                self._having.setdefault(word, {})[number] = n
        self._mean = sum(self._lengths) / max(len(texts), 1) or 1

    def scores(self, question: str) -> dict[int, float]:
        """The score of each text that has a word of the question."""
        found: dict[int, float] = {}
        for word in set(words(question)) - VAGUE:
            having = self._having.get(word, {})
            idf = math.log(1 + (len(self._lengths) - len(having) + 0.5) / (len(having) + 0.5))
            for number, k in having.items():
                length = 1 - B + B * self._lengths[number] / self._mean
                found[number] = found.get(number, 0.0) + idf * k * (K1 + 1) / (k + K1 * length)
        return found
