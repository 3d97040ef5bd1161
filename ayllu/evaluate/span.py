"""Answers that stand in a passage, found by likelihood: which span, and then the end of the answer, is the likeliest?

A span's score is log p(its ids, then a line break or an end id | prompt), so that spans of all lengths compete fairly,
or the mean over its ids. One row of ids scores all spans that begin at its place. Places whose first id is unlikely are
left out: `starts` are kept, and where the passage has no more of them the search is exact. A span ends where one of its
place's ids ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ayllu.errors import DataError
from ayllu.evaluate.likelihood import next_logprobs
from ayllu.evaluate.subject import Subject
from ayllu.text.stream import StreamDecoder

CHARACTERS = 8                                           # of a passage, per token that may be read from a place


@dataclass(frozen=True)
class Span:
    """A span of a passage by its characters, and its log-probability."""

    start: int
    end: int
    logprob: float


@dataclass(frozen=True)
class _Place:
    start: int
    ids: list[int]
    ends: dict[int, int]                                 # after how many ids a span may end, and where that is


def best_span(subject: Subject, prompt: Sequence[int], passage: str, join: str, starts: int, max_tokens: int,
              is_mean: bool = False) -> tuple[Span, bool]:
    """The likeliest answer of at most `max_tokens` ids, and whether all places were tried."""
    places = _places(subject, prompt, passage, join, max_tokens)
    if not places:
        raise DataError(f"the passage {passage[:40]!r} has no word that could be an answer")
    ended = (subject.encode_rest("\n")[-1], *subject.eos_ids)
    first = next_logprobs(subject.runner, prompt, [p.ids[0] for p in places])
    kept = [places[i] for i in sorted(range(len(places)), key=lambda i: -first[i])[:starts]]
    found = subject.likelihoods([(prompt, [*p.ids, ended[0]]) for p in kept], other=ended)
    spans = [Span(p.start, end, (sum(f.logprobs[:n]) + f.other[n]) / (n + 1 if is_mean else 1))
             for p, f in zip(kept, found, strict=True) for n, end in p.ends.items()]
    return max(spans, key=lambda s: s.logprob), len(kept) == len(places)


def _places(subject: Subject, prompt: Sequence[int], passage: str, join: str, max_tokens: int) -> list[_Place]:
    found = []
    for start in range(len(passage)):
        if passage[start].isspace() or not _is_border(passage, start):
            continue
        text = join + passage[start:start + CHARACTERS * max_tokens]
        ids = subject.encode_rest(text)[:max_tokens]
        ends = _ends(subject, prompt, passage, start, ids, join)
        if ends:
            found.append(_Place(start, ids, ends))
    return found


def _ends(subject: Subject, prompt: Sequence[int], passage: str, start: int, ids: list[int],
          join: str) -> dict[int, int]:
    decoder = StreamDecoder(subject.tokenizer, prompt[-1:])
    text, ends = "", dict[int, int]()
    for n, id in enumerate(ids, start=1):
        text += decoder.push(id)
        end = start + len(text) - len(join)
        said = passage[start:end]
        if text == join + said and any(map(str.isalnum, said)) and not said[-1].isspace() and _is_border(passage, end):
            ends[n] = end
    return ends


def _is_border(passage: str, at: int) -> bool:
    """Whether no word goes on across this place; Chinese characters are words of their own."""
    if at in (0, len(passage)):
        return True
    before, after = passage[at - 1], passage[at]
    return not (before.isalnum() and after.isalnum() and before < "\u2e80" and after < "\u2e80")
