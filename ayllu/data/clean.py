"""Unicode clean-up of a document: one spelling for what looks the same, and nothing that is no text."""

import re
import unicodedata
from collections import Counter
from typing import Any

from pydantic import Field, field_validator

from ayllu.config import Settings

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile("[\ufeff\u00ad\ufffe\uffff]")    # byte order marks, soft hyphens, what is no character
_SURROGATE = re.compile("[\ud800-\udfff]")               # halves of characters, as JSON escapes may spell them
_LINE_TAIL = re.compile(r"[ \t\u00a0\u3000]+$", re.MULTILINE)


class Cleaning(Settings):
    """Which repairs are made; `documents` counts in a report say how many documents each one changed."""

    line_ends: bool = True                               # CR LF, CR, NEL and Unicode's separators become LF
    control: bool = True                                 # control characters but tab and line feed, BOM, soft hyphens
    nfc: bool = True                                     # Unicode normalisation form C
    line_tails: bool = True                              # white space at the ends of lines
    blank_lines: int | None = Field(default=1, ge=0)     # at most so many in a row; None ("off"): as they come

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value         # TOML has no word for None


def clean(text: str, how: Cleaning) -> tuple[str, Counter[str]]:
    """The repaired text, and how much each repair changed (matches; 1 for NFC). Cleaning twice changes nothing more.

    Halves of surrogate pairs become U+FFFD always, since UTF-8 can't spell them.
    """
    changes: Counter[str] = Counter()

    def replace(name: str, pattern: re.Pattern[str], by: str, text: str) -> str:
        out, count = pattern.subn(by, text)
        changes[name] += count
        return out

    text = replace("surrogates", _SURROGATE, "\ufffd", text)
    if how.line_ends:
        text = replace("line_ends", _LINE_ENDS, "\n", text)
    if how.control:
        text = replace("control", _CONTROL, "", text)
        text = replace("invisible", _INVISIBLE, "", text)
    if how.nfc and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        changes["nfc"] += 1
    if how.line_tails:
        text = replace("line_tails", _LINE_TAIL, "", text)
    if how.blank_lines is not None:
        most = "\n" * (how.blank_lines + 1)
        text = replace("blank_lines", re.compile(most + "\n+"), most, text)
    return text.strip("\n"), +changes
