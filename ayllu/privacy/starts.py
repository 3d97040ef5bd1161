"""Where in a text a form of personal data can begin: few places, found fast; its expression is tried only there.

Python's `re` tries a pattern that begins with a look-behind at every character, 13 patterns one after another. Each
function here gives, in order, a superset of the places where its patterns match; a test compares with trying all.
"""

import re
from collections.abc import Iterator
from functools import cached_property

_RUN = re.compile("[0-9]+")
_COLONS = re.compile(":[0-9A-Fa-f]{0,4}:")
_LOCAL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+'-")       # before an @
_TOKENS = ("sk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA",
           "AIza", "hf_", "xox", "eyJ")
_NAMES = ("api", "secret", "access", "auth", "passwd", "password", "pwd")


class Starts:
    """The places of one text; a digit run is known by its first digit, since no form begins inside of one."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(first place, number of digits) of each run of ASCII digits."""
        return [(m.start(), m.end() - m.start()) for m in _RUN.finditer(self.text)]

    def digits(self, least: int = 1, most: int = 10**9) -> Iterator[int]:
        """Runs of so many digits."""
        return (start for start, n in self.runs if least <= n <= most)

    def card(self) -> Iterator[int]:
        """Twelve digits or more at once, or a first group of four."""
        return (start for start, n in self.runs if n == 4 or n >= 12)

    def phone(self) -> Iterator[int]:
        """A digit, or the + and ( before it."""
        for start, _ in self.runs:
            for place in range(max(0, start - 2), start):
                if self.text[place] in "+(":
                    yield place
            yield start

    def iban(self) -> Iterator[int]:
        """Two letters before two digits."""
        return (start - 2 for start, n in self.runs if n >= 2 and start >= 2 and self.text[start - 1].isalpha())

    def email(self) -> Iterator[int]:
        """The characters before an @ that may belong to it, 64 at most."""
        for at in self._all("@"):
            start = at
            while start > max(0, at - 64) and self.text[start - 1] in _LOCAL:
                start -= 1
            yield from range(start, at)

    def ipv6(self) -> Iterator[int]:
        """Up to four characters before the first of two colons."""
        for match in _COLONS.finditer(self.text):
            yield from range(max(0, match.start() - 4), match.start() + 1)

    def credentials(self) -> Iterator[int]:
        """What stands after `://`."""
        return (place + 3 for place in self._all("://"))

    def resident(self) -> Iterator[int]:
        """What stands after 身份证."""
        return (place + 3 for place in self._all("身份证"))

    def token(self) -> list[int]:
        """The beginnings of known kinds of keys."""
        return sorted({place for word in _TOKENS for place in self._all(word)})

    def named(self) -> list[int] | range:
        """Words such as password, in capitals too."""
        lower = self.text.lower()
        if len(lower) != len(self.text):                 # a few letters become two: places would be others
            return range(len(self.text))
        return sorted({place for word in _NAMES for place in _all(lower, word)})

    def _all(self, word: str) -> Iterator[int]:
        return _all(self.text, word)


def _all(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)
