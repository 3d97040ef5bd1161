"""Preferences as ids: each prompt with each answer to it, and where the answer begins.

Nothing is passed over in silence: a row that nothing can be learned from and an answer that would be cut are errors, or
left out, counted and listed, as the settings say.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ayllu.config import Settings
from ayllu.data.chat_rows import Conversation
from ayllu.data.chats import encode, some_of
from ayllu.data.preference_rows import Preference, preferences
from ayllu.data.rows import BadRow, Reject
from ayllu.errors import DataError, RequestError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer


class PairSource(Settings):
    """A file or folder of preferences."""

    path: str
    columns: dict[str, str] = Field(default_factory=dict)    # chosen = "better": where columns have other names
    licence: str | None = None


class Pairs(Settings):
    """Preferences to learn from, and what happens to those that don't fit."""

    root: str = "."                                      # paths are relative to this; itself relative to the recipe
    sources: tuple[PairSource, ...] = Field(min_length=1)
    held_out: float = Field(default=0.05, ge=0, lt=1)    # the share kept for evaluation, chosen by each row's prompt
    held_out_sources: tuple[PairSource, ...] = ()        # evaluate on these instead, and train on all of the others
    template: str = "auto"                               # auto: the model's; a format's name; a Jinja file; plain
    too_long: Literal["error", "drop", "cut"] = "error"  # of answers that end past the window; cut: their ends
    bad_rows: Literal["error", "drop"] = "error"         # of rows that nothing can be learned from


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
class GatheredPairs:
    """What the sources gave: the two sides, what became of each row, and the rows that were left out."""

    train: list[Compared]
    held_out: list[Compared]
    counts: list[Counter[str]]                           # for each source, those held out last
    bad: list[Reject]
    long: list[Reject]

    @property
    def rejects(self) -> list[Reject]:
        """All rows that were left out."""
        return [*self.bad, *self.long]

    @property
    def total(self) -> Counter[str]:
        """Over all sources."""
        return sum(self.counts, Counter())

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
    found = GatheredPairs([], [], [], [], [])
    apart = [(source, False) for source in config.sources] + [(source, True) for source in config.held_out_sources]
    for source, for_evaluation in apart:
        found.counts.append(counts := Counter[str]())
        for row in preferences(folder / config.root / source.path, source.path, source.columns, template is None):
            counts["rows"] += 1
            if isinstance(row, Reject):
                counts["bad_rows"] += 1
                found.bad.append(row)
                continue
            try:
                made = encode_preference(row, tokenizer, template, needs_both)
            except BadRow as error:
                counts["bad_rows"] += 1
                found.bad.append(Reject(row.file, row.line, str(error)))
                continue
            fitting = _fitted(made, context, config.too_long, counts)
            if isinstance(fitting, str):
                counts["too_long"] += 1
                found.long.append(Reject(row.file, row.line, fitting))
                continue
            held_out = for_evaluation or (not config.held_out_sources and _chosen(row, config.held_out))
            (found.held_out if held_out else found.train).append(fitting)
            counts[f"kept{'_held_out' * held_out}"] += 1
    _check(found, config, context)
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


def _chosen(row: Preference, share: float) -> bool:
    """By the prompt, so that all answers to one prompt are on one side, in whatever order files are read."""
    said = "\0".join(f"{m['role']}\0{m['content']}" for m in row.prompt)
    number = int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return number < share * 2**64


def _check(found: GatheredPairs, config: Pairs, context: int) -> None:
    total: Counter[str] = found.total
    bad, long, all_of_them = (some_of(rejects) for rejects in (found.bad, found.long, found.rejects))
    if total["bad_rows"] and config.bad_rows == "error":
        raise DataError(f"{total['bad_rows']:,} of {total['rows']:,} rows can't be learned from. {bad}. Correct "
                        "them, or set data.bad_rows=drop: they are then left out, counted and listed")
    if total["too_long"] and config.too_long == "error":
        raise DataError(f"{total['too_long']:,} of {total['rows']:,} rows have an answer that ends past the window and "
                        f"would be cut. {long}. Choose: data.too_long=drop, data.too_long=cut, or a longer context "
                        f"(now {context})")
    if not found.train:
        raise DataError(f"none of {total['rows']:,} rows is left to train on{': ' * bool(all_of_them)}{all_of_them}")
    if config.held_out and not config.held_out_sources and not found.held_out:
        raise DataError(f"held_out={config.held_out} of {total['rows']:,} rows came to none: set a larger share, name "
                        "data.held_out_sources, or set data.held_out=0")


def pair_tables(found: GatheredPairs, config: Pairs) -> list[dict[str, Any]]:
    """For reports: each source and what became of its rows."""
    sources = [*config.sources, *config.held_out_sources]
    return [{"path": source.path, "licence": source.licence, "documents": n["kept"] + n["kept_held_out"], **n}
            for source, n in zip(sources, found.counts, strict=True)]
