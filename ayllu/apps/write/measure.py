"""What a text is made of, in English and Chinese: language, units (a word, or a Chinese character), sentences."""

import re
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{HAN}]|(?:(?![{HAN}])[^\W_])+(?:['’-](?:(?![{HAN}])[^\W_])+)*")
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？…]+[”’」』）]*|(?=\n)|$)", re.DOTALL)
_MARKS = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+][ \t]+|>[ \t]*)")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a text."""

    start: int
    end: int
    text: str


def language_of(text: str) -> Language:
    """Chinese where at least a third of its units are Chinese characters: names and loanwords stay Latin."""
    found = units(text)
    return "zh" if found and 3 * sum(_is_han(unit.text) for unit in found) >= len(found) else "en"


def units(text: str) -> list[Span]:
    """Words in lower case, and Chinese characters each by itself, with their places."""
    return [Span(m.start(), m.end(), m[0].lower()) for m in _UNIT.finditer(text)]


def length(text: str) -> int:
    """Words, in Chinese characters (a Latin word among them counts as one). Punctuation and markup aren't counted."""
    return len(units(text))


def sentences(text: str) -> list[Span]:
    """Sentences without the white space around them and the marks of headings and lists before them."""
    found = []
    for match in _SENTENCE.finditer(text):
        mark = _MARKS.match(match[0])
        start = match.start() + (mark.end() if mark else 0)
        inner = text[start:match.end()]
        start += len(inner) - len(inner.lstrip())
        if inner.strip():
            found.append(Span(start, start + len(inner.strip()), inner.strip()))
    return found


def pieces(text: str, most: int) -> list[str]:
    """The text cut into parts of at most `most` characters, at paragraphs where that can be, else sentences, else
    anywhere; joined they are the text."""
    found = [""]
    for part in re.findall(r".*?(?:\n{2,}|$)", text, re.DOTALL):
        for bit in [part] if len(part) <= most else _bits(part, most):
            if len(found[-1]) + len(bit) > most and found[-1]:
                found.append("")
            found[-1] += bit
    return [piece for piece in found if piece]


def _bits(part: str, most: int) -> list[str]:
    bits = re.findall(r".*?(?:[.!?]+\s+|[。！？]+|\n|$)", part, re.DOTALL)
    return [bit[i:i + most] for bit in bits for i in range(0, len(bit), most)]


def _is_han(unit: str) -> bool:
    return re.match(f"[{HAN}]", unit) is not None
