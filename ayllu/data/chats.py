"""Conversations as ids, each with its weight in the loss; what can't be learned from is told with file and row.

A sample that teaches nothing, that begins with BOS twice or that is longer than a window is never passed over in
silence: it is an error, or left out, counted and listed, as the settings say.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from ayllu.data.chat_rows import Conversation, Form, conversations
from ayllu.data.rows import BadRow, Reject
from ayllu.data.sources import Fates, Rows, Source, chosen
from ayllu.errors import ConfigError, DataError, RequestError
from ayllu.text.chat import ChatTemplate
from ayllu.text.chat_formats import FORMATS
from ayllu.text.codec import turn_ends
from ayllu.text.tokenizer import Tokenizer

PLAIN = "plain"                                          # no template: the prompt, the completion, EOS


class ChatSource(Source):
    """A file or folder of conversations."""

    form: Form = "auto"                                  # of its rows; auto: by their columns


class Chats(Rows):
    """Conversations to learn from, which turns of them count, and what happens to those that don't fit."""

    sources: tuple[ChatSource, ...] = Field(min_length=1)
    held_out_sources: tuple[ChatSource, ...] = ()        # evaluate on these instead, and train on all of the others
    learn: Literal["assistant", "last"] = "assistant"    # every answer, or only the last one of each conversation
    prompt_weight: float = Field(default=0.0, ge=0, le=1)    # in the loss, of all that is no answer to be learned
    too_long: Literal["error", "drop", "split"] = "error"    # of samples longer than a window


@dataclass(frozen=True)
class Encoded:
    """Samples one after the other. `weights[i]` is the weight of predicting `ids[i]`; a sample's first is 0."""

    ids: np.ndarray                                      # (tokens,) int32
    weights: np.ndarray                                  # (tokens,) float32
    starts: np.ndarray                                   # (samples,) int64
    rows: tuple[str, ...] = ()                           # (samples,) the file and the row that each comes from

    @property
    def learned(self) -> int:
        """Ids that teach."""
        return int((self.weights > 0).sum())

    @cached_property
    def digest(self) -> str:
        """Changes with every id and weight."""
        found = hashlib.sha256(self.starts.tobytes())
        found.update(self.ids.tobytes())
        found.update(self.weights.tobytes())
        return found.hexdigest()[:16]


@dataclass
class Gathered(Fates):
    """What the sources gave: the two sides, and what became of each row."""

    train: Encoded
    held_out: Encoded


def gather(config: Chats, folder: Path, tokenizer: Tokenizer, template: ChatTemplate | None, context: int) -> Gathered:
    """Read and encode all sources; DataError with file and row where they can't be learned from as they are."""
    sides, fates = (_Side(), _Side()), Fates()
    apart = [(source, False) for source in config.sources] + [(source, True) for source in config.held_out_sources]
    for source, for_evaluation in apart:
        fates.counts.append(counts := Counter[str]())
        path = folder / config.root / source.path
        for row in conversations(path, source.path, source.form, source.columns):
            counts["rows"] += 1
            if isinstance(row, Reject):
                fates.refuse(row, row.reason)
                continue
            held_out = for_evaluation or (not config.held_out_sources and chosen(row.messages, config.held_out))
            try:
                ids, weights = encode(row, tokenizer, template, config.learn, 0.0 if held_out else config.prompt_weight)
                pieces = list(_fitted(ids, weights, context, config.too_long, counts))
            except BadRow as error:
                fates.refuse(row, error)
                continue
            except _TooLong as error:
                fates.refuse_long(row, error)
                continue
            sides[held_out].add(pieces, f"{row.file}, row {row.line}")
            counts[f"kept{'_held_out' * held_out}"] += 1
            if not held_out:
                counts["teach_the_end"] += any(weights[ids == end].any() for end in ends(tokenizer))
    found = Gathered(sides[0].done(), sides[1].done(), counts=fates.counts, bad=fates.bad, long=fates.long)
    _check(found, config, tokenizer, context)
    return found


def encode(row: Conversation, tokenizer: Tokenizer, template: ChatTemplate | None,
           learn: Literal["assistant", "last"] = "assistant",
           prompt_weight: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The ids (n,) of a conversation and the weight (n,) of predicting each; BadRow where that teaches nothing.

    Without a template it must be a prompt and a completion, which is learned up to EOS.
    """
    bos = tokenizer.id_to_piece(tokenizer.bos_id) if tokenizer.bos_id is not None else None
    if bos and row.messages and row.messages[0]["content"].lstrip().startswith(bos):
        raise BadRow(f"the text begins with {bos} already, so that BOS would stand twice: take it out of the text")
    ids, spans = _plain(row, tokenizer) if template is None else _rendered(row, tokenizer, template, bos)
    answers = [m for m in row.messages if m["role"] == "assistant"]
    if not answers:
        raise BadRow("no message is an assistant's: there is no answer to learn")
    if len(spans) != len(answers) and (learn == "last" or any("weight" in m for m in answers)):
        raise BadRow(f"the template keeps {len(spans)} of {len(answers)} answers, so that it can't be told which are "
                     "to be learned")
    weights = np.full(len(ids), prompt_weight, dtype=np.float32)
    for number, (start, end) in enumerate(spans):
        wanted = answers[number].get("weight", 1.0) if len(spans) == len(answers) else 1.0
        weights[start:end] = wanted if learn == "assistant" or number == len(spans) - 1 else prompt_weight
    weights[:1] = 0                                      # nothing comes before the first id that could predict it
    if not weights.any():
        raise BadRow("it teaches nothing: no answer is left to be learned")
    return np.array(ids, dtype=np.int32), weights


def ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids after which a model stops."""
    return (*tokenizer.eos_ids, *turn_ends(tokenizer.codec.controls))


def template_of(name: str, tokenizer: Tokenizer, folder: Path) -> ChatTemplate | None:
    """The template that settings name; None is `plain`."""
    if name == PLAIN:
        return None
    if name == "auto":
        try:
            return ChatTemplate.of(tokenizer)
        except RequestError as error:
            raise ConfigError(f"{error}. Set data.template to one of these, to a Jinja file, or to {PLAIN}") from error
    if name in FORMATS:
        return ChatTemplate.named(name)
    path = folder / name
    if not path.is_file():
        raise ConfigError(f"data.template={name!r}: no file at {path}, and no format of that name: use auto, "
                          f"{PLAIN}, {', '.join(FORMATS)}, or a Jinja file")
    return ChatTemplate(path.read_text(encoding="utf-8"))


class _TooLong(Exception):                               # noqa: N818 - a size, not a fault
    pass


@dataclass
class _Side:
    ids: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def add(self, pieces: list[tuple[np.ndarray, np.ndarray]], row: str) -> None:
        for ids, weights in pieces:
            self.ids.append(ids)
            self.weights.append(weights)
            self.rows.append(row)

    def done(self) -> Encoded:
        sizes = np.array([len(ids) for ids in self.ids], dtype=np.int64)
        return Encoded(np.concatenate([*self.ids, np.zeros(0, np.int32)]),
                       np.concatenate([*self.weights, np.zeros(0, np.float32)]), np.cumsum(sizes) - sizes,
                       tuple(self.rows))


def _rendered(row: Conversation, tokenizer: Tokenizer, template: ChatTemplate,
              bos: str | None) -> tuple[list[int], list[tuple[int, int]]]:
    try:
        messages = [{k: v for k, v in m.items() if k != "weight"} for m in row.messages]
        found = template.render(messages, tokenizer, tools=row.tools)
    except RequestError as error:
        raise BadRow(str(error)) from error
    if bos and bos * 2 in found.text:
        raise BadRow(f"the chat template writes {bos} twice in a row: models are trained with one; correct it")
    return found.ids, found.spans


def _plain(row: Conversation, tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """The text of prompt and completion is encoded as one, and an id that spans their border belongs to the answer."""
    if [m["role"] for m in row.messages] != ["user", "assistant"]:
        raise BadRow(f"data.template={PLAIN} takes one prompt and one completion, found "
                     f"{', '.join(m['role'] for m in row.messages)}: name a chat template")
    prompt, answer = (m["content"] for m in row.messages)
    ids = tokenizer.encode(prompt + answer, bos=True, eos=True)
    alone = tokenizer.encode(prompt, bos=True)
    same = next((n for n, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), len(alone))
    return ids, [(same, len(ids))]


def _fitted(ids: np.ndarray, weights: np.ndarray, context: int, policy: str,
            counts: Counter[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The sample, or its parts where it is split: the last id of one is the first of the next, and given there."""
    if len(ids) - 1 <= context:
        yield ids, weights
        return
    if policy != "split":
        raise _TooLong(f"{len(ids)} ids, a window of context={context} takes {context + 1}")
    counts["split"] += 1
    for start in range(0, len(ids) - 1, context):
        part, learned = ids[start:start + context + 1], weights[start:start + context + 1].copy()
        learned[0] = 0
        if learned.any():
            yield part, learned
        else:
            counts["parts_without_answer"] += 1


def _check(found: Gathered, config: Chats, tokenizer: Tokenizer, context: int) -> None:
    sources = (*config.sources, *config.held_out_sources)
    found.check(sources, config.bad_rows, config.too_long, "samples are longer than a window and would be cut. "
                f"{{}}. Choose: data.too_long=drop, data.too_long=split, or a longer context (now {context})",
                not len(found.train.starts))
    if not found.total["teach_the_end"]:
        names = ", ".join(tokenizer.id_to_piece(end) for end in ends(tokenizer)) or "none is known"
        raise DataError(f"none of {found.total['rows']:,} samples teaches where an answer ends ({names}), so the model "
                        "would never stop: choose a data.template that ends answers with one of these")
    found.check_held_out(0 if config.held_out_sources else config.held_out, not len(found.held_out.starts))
