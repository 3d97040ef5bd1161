"""Pseudonyms for people: handles, names, phones, mails and other personal data become marks that stay the same for the
same person within a run and can't be turned back without the run's secret.

Handles, phones, mails, cards and the like have a form (privacy/pii.py). Names of people have none: they are guessed
from what stands beside them (a title, "my name is", a common given name; in Chinese a surname with an address such as
女士). docs/analyse.md has how many are found and how many finds are right: many names are missed, so this lowers what a
report gives away and doesn't make it anonymous.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from ayllu.privacy.pii import find
from ayllu.text.lexicon import listed

_HANDLE = re.compile(r"(?<![\w@./])[@＠]([\w\u3400-\u9fff][\w\u3400-\u9fff.-]{1,30})")
_GIVEN = frozenset(listed()["given_names"])
_CAPITAL = r"[A-ZÀ-ÖØ-Þ][a-zß-ÿ\u0100-\u017f'’-]+"
_TITLED = re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Madam)\.?\s+((?:{_CAPITAL}|[A-Z]\.)(?:\s+{_CAPITAL}){{0,2}})")
_SAID = re.compile(rf"(?i:\b(?:name:|my name is|my name['’]s|i am called|signed,?|regards,?|sincerely,?|yours,?))"
                   rf"\s+({_CAPITAL}(?:\s+(?:[A-Z]\.\s+)?{_CAPITAL}){{0,2}})")
_MAYBE = re.compile(rf"\b({_CAPITAL})((?:\s+[A-Z]\.)?(?:\s+(?:van|von|de|da|bin|al))?\s+{_CAPITAL})?")
_SURNAMES = "".join(listed()["surnames"])
_ADDRESSED = re.compile(rf"([{_SURNAMES}][\u4e00-\u9fff]{{0,2}}?)(?=先生|女士|小姐|老师|经理|师傅|医生|教授|主任|同学)")
_CALLED = re.compile(rf"(?:我叫|名叫|我是|姓名[:：是]?|联系人[:：]?|客服)\s*([{_SURNAMES}][\u4e00-\u9fff]{{1,2}})"
                     r"(?=[，,。.！!、\s]|$|先生|女士|的)")
MARKS = {"email": "mail", "phone": "phone", "handle": "user", "name": "person"}


@dataclass
class Pseudonyms:
    """Marks for people. The same secret gives the same marks; without it nobody can try names."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    counts: dict[str, int] = field(default_factory=dict)

    def mark(self, kind: str, value: str) -> str:
        """For example [person-5f0a1c9e]: 8 letters of HMAC-SHA256; of 10,000 people, two share one in 1 run of 100."""
        told = " ".join(value.split()).casefold().lstrip("@＠")
        digest = hmac.new(self.secret, f"{kind}\0{told}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        return f"[{kind}-{digest[:8]}]"

    def author(self, name: str) -> str:
        """An author's mark: the one that @name has in texts."""
        return self.mark("user", name)

    def text(self, text: str) -> str:
        """The text with marks where people are named."""
        out, last = [], 0
        for start, end, kind in _people(text):
            self.counts[kind] = self.counts.get(kind, 0) + 1
            out += [text[last:start], self.mark(MARKS.get(kind, kind.replace("_", "-")), text[start:end])]
            last = end
        return "".join([*out, text[last:]])


def _people(text: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) in order, none over another; what has a form wins over what is guessed."""
    found = [(span.start, span.end, str(span.kind)) for span in find(text)]
    found += [(*match.span(), "handle") for match in _HANDLE.finditer(text)]
    found += [(start, end, "name") for start, end in names(text)]
    out: list[tuple[int, int, str]] = []
    taken = bytearray(len(text))
    for start, end, kind in found:
        if not any(taken[start:end]):
            taken[start:end] = b"\1" * (end - start)
            out.append((start, end, kind))
    return sorted(out)


def names(text: str) -> Iterator[tuple[int, int]]:
    """Where names of people seem to stand; a guess (see above)."""
    for pattern in (_TITLED, _SAID, _ADDRESSED, _CALLED):
        for match in pattern.finditer(text):
            yield match.span(1)
    for match in _MAYBE.finditer(text):
        if match[1].lower() in _GIVEN:
            yield match.span()
