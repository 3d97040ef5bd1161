"""Phrases of a rules file as patterns that a shopkeeper can read, and a search that can't take long.

    (a|b)   either        ?   what stands before may be missing
    *       alone: up to four words, or up to eight signs in a phrase with Chinese; at a word's end: any ending

Everything else stands for itself, whatever its case; a Latin phrase begins and ends at the borders of words.
"""

import re
import unicodedata
from functools import lru_cache

from ayllu.errors import ConfigError

CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
LETTER = re.compile(r"[^\W\d_]")
PARTS = re.compile(r"\s*(?P<gap> \* |(?<=\))\*(?=\()|\*)\s*|(?P<sign>[()|?])|(?P<space>\s+)|(?P<text>[^()|?*\s]+)")


def plain(text: str) -> str:
    """One form for what looks the same: full-width letters, capitals, curly apostrophes."""
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()


def language_of(text: str) -> str | None:
    """"zh" where a fifth of the letters is Chinese, "en" where there are others, None where there are none."""
    letters = LETTER.findall(text)
    return None if not letters else "zh" if 5 * len(CJK.findall(text)) >= len(letters) else "en"


@lru_cache(maxsize=4096)
def pattern_of(phrase: str) -> re.Pattern[str]:
    """The pattern of one phrase. Repeats are bounded and don't nest, so no message makes it slow."""
    is_cjk = bool(CJK.search(phrase))
    source = plain(phrase.strip())
    out = "".join(_piece(found, is_cjk) for found in PARTS.finditer(source))
    try:
        return re.compile(out if is_cjk else rf"(?<!\w)(?:{out})(?!\w)")
    except re.error as error:
        raise ConfigError(f"the phrase {phrase!r} can't be read ({error}): write words, (a|b) for either, ? after "
                          "what may be missing, and * for words between") from error


def _piece(found: re.Match[str], is_cjk: bool) -> str:
    gap = found["gap"]
    if gap is not None:
        if is_cjk:
            return ".{0,8}?"
        alone = found[0] != "*"                          # with a space on a side: words; without: an ending
        return r"(?:\W+\w+){0,4}?\W+" if alone else r"\w*"
    if found["sign"]:
        return "(?:" if found["sign"] == "(" else found["sign"]
    return r"\W+" if found["space"] else re.escape(found["text"])


def first_match(phrases: tuple[str, ...], text: str) -> str | None:
    """The part of a text that a phrase fits, or None; `text` as `plain` gives it."""
    return next((found[0] for phrase in phrases if (found := pattern_of(phrase).search(text))), None)
