"""What stands in a text and is not for translation: addresses, placeholders, names of code, terms with a fixed word.

Each becomes a mark, so that no model can change it; a term's mark is written as the word that the glossary wants.
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ayllu.apps.translate.marks import Parts, Tag, numbered
from ayllu.errors import DataError

KEPT = re.compile(r"""
    (?:https?|ftp|file)://[^\s<>"'，。；）]*[^\s<>"'，。；）.,;:!?)\]]     # addresses, less a sentence's end
  | \bwww\.[\w.-]+\.\w+(?:/[\w./%-]*)?
  | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
  | \{\{[^{}]*\}\} | \$\{[^{}]*\} | \{(?:[^{}\n]|\{[^{}\n]*\})*\}             # {{ x }}  ${x}  {x}  {n, plural, one {…}}
  | %(?:\(\w+\)|\d+\$)?[-+\#0]*\d*(?:\.\d+)?[diouxXeEfgGcrsa](?![a-zA-Z])     # %s  %(name)s  %1$d
  | </?\d{1,4}/?>                                                           # what looks like one of our own marks
  | (?<![\w-])--?[a-z][\w-]*[a-z](?![\w-])(?<!-\w)                          # options: --out
  | \b\w+(?:\.\w+)*\(\)                                                     # calls: name()
  | \b[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+\b                                      # names_of_code
  | (?<![\w/])(?:~|\.{1,2})?(?:/[\w.-]+){2,}/?                                # /paths/of/files
""", re.VERBOSE)
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True)
class Glossary:
    """Terms and the words that must stand for them; a term that stays as it is stands for itself."""

    terms: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Glossary":
        """A CSV or TSV file of two columns, term and translation; a term alone is not to be translated."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} can't be read as a glossary ({error}): give a UTF-8 file of term,translation") \
                from error
        rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
        terms: dict[str, str] = {}
        for number, row in enumerate(rows, start=1):
            row = [cell.strip() for cell in row]
            if not any(row) or row[0].startswith("#"):
                continue
            if len(row) > 2 or not row[0]:
                raise DataError(f"{path}:{number}: found {len(row)} cells, {row[:4]}; expected term,translation, or a "
                                "term alone that is kept")
            other = row[1] if len(row) == 2 and row[1] else row[0]
            if terms.setdefault(row[0], other) != other:
                raise DataError(f"{path}:{number}: {row[0]!r} has two translations: keep one")
        return cls(terms)

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """All terms, the longest first; words of an alphabet only as whole words, whatever their case."""
        ordered = sorted((term for term in self.terms if term), key=len, reverse=True)
        return re.compile("|".join(_bounded(term) for term in ordered), re.IGNORECASE) if ordered else None

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {term.lower(): other for term, other in self.terms.items()}

    def word(self, found: str) -> str:
        """What must stand for a term; one that stays keeps the case that it has."""
        other = self._folded[found.lower()]
        return found if other.lower() == found.lower() else other


def _bounded(term: str) -> str:
    left = r"(?<![A-Za-z0-9_])" if term[0].isascii() and term[0].isalnum() else ""
    right = r"(?![A-Za-z0-9_])" if term[-1].isascii() and term[-1].isalnum() else ""
    return left + re.escape(term) + right


def masked(parts: Parts, glossary: Glossary, with_numbers: bool = False) -> Parts:
    """The parts with each such thing as a mark."""
    found: list[str | Tag] = []
    for part in parts:
        if isinstance(part, str):
            found += _masked(part, glossary, with_numbers)
        else:
            found.append(part)
    return numbered(found)


def _masked(text: str, glossary: Glossary, with_numbers: bool) -> Iterator[str | Tag]:
    place = 0
    for start, end, word in _places(text, glossary, with_numbers):
        if start >= place:
            yield text[place:start]
            yield Tag("hole", -1, text=word, hides=text[start:end])
            place = end
    yield text[place:]


def _places(text: str, glossary: Glossary, with_numbers: bool) -> list[tuple[int, int, str]]:
    found = [(*m.span(), m.group()) for m in KEPT.finditer(text)]
    if glossary.pattern:
        found += [(*m.span(), glossary.word(m.group())) for m in glossary.pattern.finditer(text)]
    if with_numbers:
        found += [(*m.span(), m.group()) for m in NUMBER.finditer(text)]
    return sorted(found, key=lambda one: (one[0], -one[1]))


def numbers(text: str) -> Counter[str]:
    """The numbers of a text as they are compared: 1,000 and １０００ are the same."""
    text = unicodedata.normalize("NFKC", text)
    return Counter(re.sub(r"(?<=\d),(?=\d{3})", "", n) for n in NUMBER.findall(text))
