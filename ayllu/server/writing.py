"""One answer as its tokens come: text that is safe to show, and log-probabilities of no more than that text.

A stop string shows neither in the text nor, letter by letter, in the log-probabilities: an entry waits until all of its
token's text has been given out, and the entries of what a stop string cut off are dropped.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ayllu.engine.request import Finish, Token
from ayllu.text.call_form import CallForm
from ayllu.text.call_reader import CallPiece, CallReader
from ayllu.text.stream import StopFilter, StreamDecoder
from ayllu.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Calls:
    """How tool calls are read from an answer; `is_forced`: it begins with one."""

    form: CallForm
    is_forced: bool


class Entry(NamedTuple):
    """One token with its log-probability and those of the likeliest; `offset` is where its text begins."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    offset: int
    is_end: bool = False                                 # an end id, which has no text


class Piece(NamedTuple):
    """What one token made certain."""

    text: str = ""
    ids: tuple[int, ...] = ()
    entries: tuple[Entry, ...] = ()
    finish: Finish | None = None
    stop: str | None = None                              # the stop string that ended it
    calls: tuple[CallPiece, ...] = ()                    # of tools, after the text


class Writer:
    """Text and entries of one sample. After a piece with `finish` nothing more is taken."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str], strip: bool = False,
                 calls: Calls | None = None) -> None:
        """`strip` drops white space before the first character."""
        self.decoder = StreamDecoder(tokenizer, prompt, skip_special=True)
        self.calls = CallReader(calls.form, stop, is_forced=calls.is_forced) if calls else None
        self.filter: StopFilter | CallReader = self.calls or StopFilter(stop)
        self.marks = {id: mark for mark, id in calls.form.marks.items()} if calls else {}
        self.strip = strip
        self.finish: Finish | None = None
        self.n_tokens = 0
        self._decoded = 0                                # characters that the tokens so far made certain
        self._waiting: deque[tuple[int, Entry]] = deque()    # (where its text ends, entry)

    def push(self, token: Token) -> Piece:
        """Take the next token."""
        if self.finish is not None:
            return Piece()
        self.finish = token.finish
        if token.id is None:                             # cancelled or broken: what was held is no stop string now
            return self._end(token)
        self.n_tokens += 1
        is_end = token.finish == "stop"
        text = "" if is_end else self.decoder.push(token.id) + self.marks.get(token.id, "")
        entry = Entry(token.id, token.logprob, token.top, self._decoded, is_end)
        self._decoded += len(text)
        self._waiting.append((self._decoded, entry))
        shown = self.filter.push(text)
        if not self.filter.stopped and token.finish is not None:
            shown += self.filter.push(self.decoder.flush()) + self.filter.flush()
        if self.filter.stopped:
            self.finish = "stop"
        return self._piece(shown, (token.id,))

    def _end(self, token: Token) -> Piece:
        return self._piece(self.filter.push(self.decoder.flush()) + self.filter.flush(), ())

    def _piece(self, shown: str, ids: tuple[int, ...]) -> Piece:
        entries = []
        while self._waiting and self._waiting[0][0] <= self.filter.n_settled:
            entries.append(self._waiting.popleft()[1])
        if self.finish is not None and not self.filter.stopped:      # the end id, and bytes that became no character
            entries += [entry for _, entry in self._waiting]
        if self.strip:
            shown = shown.lstrip()
            self.strip = not shown
        return Piece(shown, ids, tuple(entries), self.finish, self.filter.matched,
                     self.calls.take() if self.calls else ())


@dataclass
class Call:
    """A tool call that the model made; not whole where the answer was cut."""

    name: str
    arguments: str = ""                                  # JSON
    is_whole: bool = False


@dataclass
class Written:
    """A whole answer, gathered from its pieces."""

    text: str = ""
    n_tokens: int = 0
    ids: tuple[int, ...] = ()
    entries: tuple[Entry, ...] = ()
    finish: Finish | None = None
    stop: str | None = None
    calls: list[Call] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Append what came."""
        self.text += piece.text
        self.n_tokens += len(piece.ids)
        self.ids += piece.ids
        self.entries += piece.entries
        self.finish, self.stop = piece.finish or self.finish, piece.stop or self.stop
        for part in piece.calls:
            if part.name is not None:
                self.calls.append(Call(part.name))
            self.calls[-1].arguments += part.arguments
            self.calls[-1].is_whole = part.is_whole


def token_text(tokenizer: Tokenizer, id: int) -> tuple[str, list[int]]:
    """A token as text and as bytes; bytes that are no whole characters are spelled out, as OpenAI does."""
    data = tokenizer.bytes_of(id)
    if id in tokenizer.special_ids or not data:
        text = tokenizer.id_to_piece(id)
        return text, list(text.encode())
    try:
        return data.decode(), list(data)
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data), list(data)
