"""Which languages: their names, how they are written, and which one a text is in."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ayllu.data.language import identify, likelihoods
from ayllu.errors import ConfigError, DataError, MissingExtra

_KNOWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NAMES: dict[str, str] = _KNOWN["names"]
SCRIPTS: dict[str, str] = _KNOWN["scripts"]
_WIDE = re.compile(r"[　-ヿ㐀-鿿豈-﫿！-｠“”‘’…—]")
SURE = 20                                                # letters from which two Latin languages are told apart
SPACELESS = frozenset({"zh", "ja", "th"})


@dataclass(frozen=True)
class Pair:
    """From one language to another: ISO 639-1 codes."""

    source: str
    target: str

    def __post_init__(self) -> None:
        for code in (self.source, self.target):
            if code not in NAMES:
                raise ConfigError(f"the language {code!r} isn't known: give one of {', '.join(NAMES)}")
        if self.source == self.target:
            raise ConfigError(f"from {self.source} to {self.target}: there is nothing to translate; --from and --to "
                              "name two languages")

    @property
    def back(self) -> "Pair":
        """The other way round."""
        return Pair(self.target, self.source)

    def __str__(self) -> str:
        return f"{self.source}→{self.target}"


def share_in_script(text: str, language: str) -> float:
    """The share of a text's letters that are of the language's script; 1 where any letter is."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return 0.0
    script = SCRIPTS.get(language)
    if script is None:
        return 1 - sum(_ALL.match(c) is not None for c in letters) / len(letters)
    return len(re.findall(f"[{script}]", text)) / len(letters)


_ALL = re.compile("[" + "".join(sorted(set(SCRIPTS.values()))) + "]")


def is_other(text: str, pair: Pair) -> bool:
    """Whether a text of a page is in its target language already, or in none that the pair is about."""
    if pair.source in SCRIPTS and share_in_script(text, pair.source) == 0:
        return True
    return pair.target in SCRIPTS and pair.source not in SCRIPTS and share_in_script(text, pair.target) > 0.6


def strayed(text: str, pair: Pair) -> bool:
    """Whether an answer is surely in English or the source's language, where another one of Latin letters was asked
    for. Short ones can't be told, nor any without the library of the extra `data`."""
    if pair.target in SCRIPTS or sum(map(str.isalpha, text)) < SURE:
        return False
    try:
        p = likelihoods(text)
    except MissingExtra:
        return False
    others = {"en", pair.source} - {pair.target}
    return max(p.get(code, 0.0) for code in others) > 0.9 and p.get(pair.target, 0.0) < 0.01


def spaced(left: str, right: str, target: str, had: bool) -> str:
    """What stands between two pieces of a translation where the source had a blank (or had none)."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return ""
    if target in SPACELESS:
        return " " if had and not (_WIDE.match(left[-1]) or _WIDE.match(right[0])) else ""
    starts = right[0].isalnum() or right[0] in "“‘(["
    return " " if had or (starts and (left[-1].isalnum() or left[-1] in ".,!?;:”’)]")) else ""


def detect(texts: Iterable[str], named: str = "") -> str:
    """The language of a document. Writing that only one language uses decides; else the identifier of `data`, and
    where that knows none, what the page itself says (`named`)."""
    sample = " ".join(texts)[:8000]
    letters = sum(map(str.isalpha, sample))
    if not letters:
        raise DataError("no letters were found, so the language can't be told: give --from")
    if len(re.findall("[぀-ヿ]", sample)) > 0.1 * letters:
        return "ja"
    for code in ("zh", "ko", "el", "he", "th", "hi"):
        if share_in_script(sample, code) > 0.3:
            return code
    try:
        found = identify(sample)
    except MissingExtra as error:
        raise MissingExtra(f"{error} Or name the language: --from en") from error
    known = next((code for code in (found, named.lower()[:2]) if code in NAMES), None)
    if known is None:
        raise DataError(f"the language couldn't be told (found {found!r}): give --from")
    return known
