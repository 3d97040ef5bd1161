"""Preferences as ids: each prompt with each answer to it, and where the answer begins.

Nothing is passed over in silence: a row that nothing can be learned from and an answer that would be cut are errors, or
left out, counted and listed, as the settings say.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from ayllu.data.chat_rows import Conversation
from ayllu.data.chats import encode
from ayllu.data.preference_rows import Preference, preferences
from ayllu.data.rows import BadRow, Reject
from ayllu.data.sources import Fates, Rows, Source, chosen
from ayllu.errors import RequestError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer


class Pairs(Rows):
    """Preferences to learn from, held out by their prompts, and what happens to those that don't fit."""

    sources: tuple[Source, ...] = Field(min_length=1)
    held_out_sources: tuple[Source, ...] = ()            # evaluate on these instead, and train on all of the others
    too_long: Literal["error", "drop", "cut"] = "error"  # of answers that end past the window; cut: their ends


@dataclass(frozen=True, eq=False)
class Answer:
    """A prompt with an answer: `ids` (T,), of which those from `start` on are the answer's, with what ends it."""

    ids: np.ndarray
    start: int

    @property
    def size(self) -> int:
        """Ids of the answer."""
        return len(self.ids) - self.start


@dataclass(frozen=True)
class Compared:
    """A row as ids; one answer is missing where there is only a verdict."""

    good: Answer | None
    bad: Answer | None
    row: str                                             # the file and the row that it comes from

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Those that there are, the better first."""
        return tuple(answer for answer in (self.good, self.bad) if answer is not None)


@dataclass
class GatheredPairs(Fates):
    """What the sources gave: the two sides, and what became of each row."""

    train: list[Compared]
    held_out: list[Compared]

    @cached_property
    def digest(self) -> str:
        """Changes with every id of both sides."""
        found = hashlib.sha256()
        for side in (self.train, self.held_out):
            for row in side:
                for answer in (row.good, row.bad):
                    found.update(b"-" if answer is None else b"%d:" % answer.start + answer.ids.tobytes())
            found.update(b"|")
        return found.hexdigest()[:16]


def gather_pairs(config: Pairs, folder: Path, tokenizer: Tokenizer, template: ChatTemplate | None, context: int,
                 needs_both: bool) -> GatheredPairs:
    """Read and encode all sources; DataError with file and row where they can't be learned from as they are."""
    found = GatheredPairs([], [])
    apart = [(source, False) for source in config.sources] + [(source, True) for source in config.held_out_sources]
    for source, for_evaluation in apart:
        found.counts.append(counts := Counter[str]())
        for row in preferences(folder / config.root / source.path, source.path, source.columns, template is None):
            counts["rows"] += 1
            if isinstance(row, Reject):
                found.refuse(row, row.reason)
                continue
            try:
                made = encode_preference(row, tokenizer, template, needs_both)
            except BadRow as error:
                found.refuse(row, error)
                continue
            fitting = _fitted(made, context, config.too_long, counts)
            if isinstance(fitting, str):
                found.refuse_long(row, fitting)
                continue
            held_out = for_evaluation or (not config.held_out_sources and chosen(row.prompt, config.held_out))
            (found.held_out if held_out else found.train).append(fitting)
            counts[f"kept{'_held_out' * held_out}"] += 1
    found.check((*config.sources, *config.held_out_sources), config.bad_rows, config.too_long, "rows have an answer "
                "that ends past the window and would be cut. {}. Choose: data.too_long=drop, data.too_long=cut, or a "
                f"longer context (now {context})", not found.train)
    found.check_held_out(0 if config.held_out_sources else config.held_out, not found.held_out)
    return found


def encode_preference(row: Preference, tokenizer: Tokenizer, template: ChatTemplate | None,
                      needs_both: bool = True) -> Compared:
    """Both answers after the same ids of the prompt; BadRow where that can't be."""
    if needs_both and (row.good is None or row.bad is None):
        raise BadRow("it has one answer with a verdict, and this method compares two: use method=kto, or rows with "
                     "chosen and rejected")
    good, bad = (None if said is None else _encoded(row, said, tokenizer, template) for said in (row.good, row.bad))
    if good is not None and bad is not None:
        start = min(good.start, bad.start)               # an id may span the border of prompt and answer
        if not np.array_equal(good.ids[:start], bad.ids[:start]):
            raise BadRow("the ids before the chosen answer are not those before the rejected one: the chat template "
                         "writes the prompt by the answer")
        good, bad = replace(good, start=start), replace(bad, start=start)
        if np.array_equal(good.ids, bad.ids):
            raise BadRow("chosen and rejected are the same ids: there is nothing to prefer")
    return Compared(good, bad, f"{row.file}, row {row.line}")


def _encoded(row: Preference, said: str, tokenizer: Tokenizer, template: ChatTemplate | None) -> Answer:
    whole = Conversation(row.file, row.line, [*row.prompt, {"role": "assistant", "content": said}])
    ids, weights = encode(whole, tokenizer, template, learn="last")
    learned = np.flatnonzero(weights)
    if template is not None:
        try:
            prompt = template.render(row.prompt, tokenizer, add_generation_prompt=True, with_spans=False).ids
        except RequestError as error:
            raise BadRow(str(error)) from error
        same = min(len(prompt), int(learned[0]))
        if prompt[:same] != ids[:same].tolist():
            raise BadRow("the ids of the prompt alone are not those that the whole sample begins with: the model would "
                         "never be asked in this way; choose another data.template")
    return Answer(ids[:learned[-1] + 1], int(learned[0]))


def _fitted(row: Compared, context: int, policy: str, counts: Counter[str]) -> Compared | str:
    """The row, cut where that is wanted, or why it is left out."""
    longest = max(len(answer.ids) for answer in row.answers)
    if longest <= context + 1:
        return row
    if policy != "cut" or max(answer.start for answer in row.answers) >= context:
        return f"{longest} ids, a window of context={context} takes {context + 1}"
    good, bad = (answer and replace(answer, ids=answer.ids[:context + 1]) for answer in (row.good, row.bad))
    if good is not None and bad is not None and np.array_equal(good.ids, bad.ids):
        return f"both answers are the same up to context={context}"
    counts["cut"] += 1
    return Compared(good, bad, row.row)
