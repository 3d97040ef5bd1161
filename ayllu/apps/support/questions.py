"""Questions with what should become of them: how good a customer service is, before customers find out.

A table of three columns, divided by tabs: `language`, `expected`, `question`. Expected is "returns.md: How long you
have" (document and heading, or a table's first cell), "hand_over: order", "decline: health", "unknown", or small talk.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ayllu.apps.support.figures import share, wilson
from ayllu.apps.support.wording import Citation
from ayllu.errors import DataError

SMALL_TALK = ("greeting", "thanks", "goodbye")


@dataclass(frozen=True)
class Question:
    """One row. The part is given by the question's hash: what is set to fit "dev" is shown on "test"."""

    language: str
    expected: str
    text: str

    @property
    def kind(self) -> str:
        """answer, hand_over, decline, unknown, greeting, ..."""
        name = self.expected.partition(":")[0]
        return name if name in ("hand_over", "decline", "unknown", *SMALL_TALK) else "answer"

    @property
    def part(self) -> Literal["dev", "test"]:
        """Half of all questions each."""
        return "dev" if hashlib.sha256(self.text.encode()).digest()[0] % 2 else "test"


@dataclass(frozen=True)
class Given:
    """What a service made of a question: kind, and "document: heading" of the section that it cites first."""

    kind: str
    section: str = ""


def read_questions(path: Path) -> list[Question]:
    """The rows of a table of questions."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [Question(row["language"], row["expected"], row["question"])
                    for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of questions ({error}): its columns are language, expected, question, "
                        "divided by tabs") from error


def given_of(kind: str, citations: Sequence[Citation]) -> Given:
    """Of an answer; pages lie in a folder for each language, which the expected name leaves out."""
    return Given(kind, f"{Path(citations[0].source).name}: {citations[0].heading}" if citations else "")


def measure(questions: Iterable[Question], answer: Callable[[Question], Given]) -> dict[str, Any]:
    """Shares with 95 % intervals. `refused`: declined or not known, as it should be for what the shop can't answer."""
    rows = [(q, answer(q)) for q in questions]
    ours = [(q, g) for q, g in rows if q.kind == "answer"]
    handed = [q.kind == "hand_over" for q, g in rows if g.kind == "hand_over"]
    people = [g.kind == "hand_over" for q, g in rows if q.kind == "hand_over"]
    others = [g.kind in ("unknown", "decline") for q, g in rows if q.kind in ("unknown", "decline")]
    refused = [q.kind in ("unknown", "decline") for q, g in rows if g.kind in ("unknown", "decline")]
    asked = [g.kind for q, g in rows if q.kind not in SMALL_TALK]
    return {"n": len(rows),
            "right": _share(g.kind == "answer" and g.section == q.expected for q, g in ours),
            "wrong_section": _share(g.kind == "answer" and g.section != q.expected for q, g in ours),
            "hand_over_precision": _share(handed), "hand_over_recall": _share(people),
            "refusal_precision": _share(refused), "refusal_recall": _share(others),
            "small_talk": _share(g.kind == q.kind for q, g in rows if q.kind in SMALL_TALK),
            "deflection": _share(kind != "hand_over" for kind in asked),
            "wrong": [{"question": q.text, "expected": q.expected, "given": g.section or g.kind} for q, g in rows
                      if (g.section or g.kind) != (q.expected if q.kind == "answer" else q.kind)]}


def _share(hits: Iterable[bool]) -> dict[str, Any]:
    found = list(hits)
    return {"share": share(sum(found), len(found)), "interval": wilson(sum(found), len(found)), "n": len(found)}
