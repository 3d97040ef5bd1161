"""Text with marks: what stands inside a sentence and is no word (an inline tag, code, a placeholder), at its place.

A model sees a mark as `<1>`, `</1>` or `<2/>`. Whatever it answers, only an answer with the same marks, well nested, is
taken over, so that no tag is ever lost, doubled or crossed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

SHOWN = re.compile(r"<(/?)(\d{1,4})(/?)>")


@dataclass(frozen=True)
class Tag:
    """One mark. `start` and `end` are its place in the source; `text` is written instead of it where it stands for
    words (a placeholder, a term), and `hides` what the model would have read there."""

    kind: Literal["open", "close", "hole"]
    number: int                                          # the open and the close of a pair share it
    start: int = 0
    end: int = 0
    text: str | None = None
    hides: str = ""

    @property
    def shown(self) -> str:
        """As a model sees it."""
        return {"open": f"<{self.number}>", "close": f"</{self.number}>", "hole": f"<{self.number}/>"}[self.kind]


Parts = tuple[str | Tag, ...]


def shown(parts: Parts) -> str:
    """The text as a model sees it."""
    return "".join(part if isinstance(part, str) else part.shown for part in parts)


def words(parts: Parts) -> str:
    """The text without marks; a term that was masked reads as it did."""
    return "".join(part if isinstance(part, str) else part.hides for part in parts)


def written(parts: Parts) -> str:
    """The text without marks; a term is its translation."""
    return "".join(part if isinstance(part, str) else part.text or part.hides for part in parts)


def tags(parts: Parts) -> list[Tag]:
    """The marks in their order."""
    return [part for part in parts if isinstance(part, Tag)]


def has_letters(text: str) -> bool:
    """Whether there is anything to translate."""
    return any(map(str.isalpha, text))


def read(answer: str, parts: Parts) -> Parts | None:
    """The answer with the marks of `parts`, or None where they aren't the same ones, each once, and well nested."""
    known = {tag.shown: tag for tag in tags(parts)}
    found: list[str | Tag] = []
    place = 0
    for match in SHOWN.finditer(answer):
        tag = known.pop(match.group(), None)
        if tag is None:
            return None
        found += [answer[place:match.start()], tag]
        place = match.end()
    result = joined([*found, answer[place:]])
    return result if not known and is_nested(result) and nesting(result) == nesting(parts) else None


def is_nested(parts: Parts) -> bool:
    """Whether each pair opens before it closes, and pairs don't cross."""
    stack: list[int] = []
    for tag in tags(parts):
        if tag.kind == "open":
            stack.append(tag.number)
        elif tag.kind == "close" and (not stack or stack.pop() != tag.number):
            return False
    return not stack


def nesting(parts: Parts) -> dict[tuple[bool, int], int]:
    """For each pair and each tag alone, the pair that it stands in: a link must not come to stand in another link."""
    found: dict[tuple[bool, int], int] = {}
    stack = [0]
    for tag in tags(parts):
        if tag.kind == "close":
            stack.pop()
        elif tag.kind == "open" or tag.text is None:     # a term or a placeholder is free
            found[tag.kind == "hole", tag.number] = stack[-1]
            if tag.kind == "open":
                stack.append(tag.number)
    return found


def joined(parts: Iterable[str | Tag]) -> Parts:
    """Neighbouring texts as one, empty ones left out."""
    found: list[str | Tag] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)


def numbered(parts: Sequence[str | Tag]) -> Parts:
    """Marks numbered from 1 in their order, so that the same sentence in another place is the same text."""
    numbers: dict[tuple[bool, int], int] = {}
    result: list[str | Tag] = []
    count = 0
    for part in parts:
        if isinstance(part, Tag):
            key = (part.kind == "hole", part.number)
            if key not in numbers or part.kind == "hole":
                count += 1
                numbers[key] = count
            part = replace(part, number=numbers[key])
        result.append(part)
    return joined(result)
