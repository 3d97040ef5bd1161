"""Tool calls out of an answer's text as it comes: what is text, what is a name, what are arguments.

The grammar (server/call_grammar.py) has seen to it that nothing else comes, so that reading is plain: the texts of the
model's form stand where they must, and arguments end where their JSON object does.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ayllu.text.call_form import CallForm
from ayllu.text.stream import StopFilter

_ID = re.compile(r',\s*"id":\s*"[^"]*"')


@dataclass(frozen=True)
class CallPiece:
    """A part of call `index` (0, 1, ...): its name comes first, then its arguments piece by piece, as JSON."""

    index: int
    name: str | None = None
    arguments: str = ""
    is_whole: bool = False                               # with the last piece of the arguments


class _Stage(Enum):
    START, TEXT, BEGIN, NAME, ARGUMENTS, AFTER = (auto() for _ in range(6))


class CallReader:
    """A filter of text (stream.py) that keeps calls apart. Stop strings count in the text, never within a call."""

    def __init__(self, form: CallForm, stop: Iterable[str], *, is_forced: bool) -> None:
        """`is_forced`: the answer begins with a call."""
        self.form = form
        self._triggers = {form.lead + form.trigger, form.trigger} if form.trigger else set()
        self._text = StopFilter([*stop, *sorted(self._triggers)])
        self._stage = _Stage.BEGIN if is_forced else _Stage.TEXT if form.trigger else _Stage.START
        self._buffer = ""                                # of calls, what is still to be read
        self._blank, self._is_blank = "", bool(self._triggers)   # white space before the first word of text
        self._begin, self._middle = _pattern(form.begin, form), _pattern(form.middle, form)
        self._again = None if form.again is None else _pattern(form.again, form)
        self._index = -1
        self._json = JsonEnd()
        self._pieces: list[CallPiece] = []
        self._n_calls = 0                                # characters of calls

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._text.stopped and not self._in_calls

    @property
    def matched(self) -> str | None:
        """The stop string that did."""
        return None if self._in_calls else self._text.matched

    @property
    def n_settled(self) -> int:
        """How many characters, of all that came, are given out or belong to calls."""
        return self._text.n_settled + self._n_calls

    @property
    def _in_calls(self) -> bool:
        return self._stage not in (_Stage.START, _Stage.TEXT)

    def take(self) -> tuple[CallPiece, ...]:
        """The pieces of calls that became certain since the last time."""
        pieces, self._pieces = self._pieces, []
        return tuple(pieces)

    def push(self, text: str) -> str:
        """Take more of the answer, give the text that may be shown."""
        if self._stage is _Stage.START and text:
            is_call = text.startswith((self.form.begin[0], self.form.prelude or self.form.begin[0]))
            self._stage = _Stage.BEGIN if is_call else _Stage.TEXT
        if self._in_calls:
            self._read(text)
            return ""
        shown = self._text.push(text)
        if self._text.matched in self._triggers:
            self._stage = _Stage.BEGIN
            self._n_calls += len(self._text.matched or "") - len(self.form.trigger)
            self._read(self.form.trigger + self._text.rest)
            return self._given(shown, is_last=False)
        return self._given(shown, is_last=self._text.stopped)

    def flush(self) -> str:
        """The answer has ended: text that was held back."""
        return "" if self._in_calls else self._given(self._text.flush(), is_last=True)

    def _given(self, shown: str, *, is_last: bool) -> str:
        """White space alone before a call is no text."""
        if not self._is_blank:
            return shown
        self._blank += shown
        if not (is_last or self._blank.strip()):
            return ""
        self._is_blank = False
        return self._blank

    def _read(self, text: str) -> None:
        self._n_calls += len(text)
        self._buffer += text
        while self._step():
            pass

    def _step(self) -> bool:
        """Read one thing from the buffer; False where more must come first."""
        match self._stage:
            case _Stage.BEGIN:
                self._buffer = self._buffer.removeprefix(self.form.prelude) if self.form.prelude else self._buffer
                return self._passes(self._begin.match, _Stage.NAME)
            case _Stage.NAME:
                found = self._middle.search(self._buffer)
                if found:
                    self._index, self._json = self._index + 1, JsonEnd()
                    self._pieces.append(CallPiece(self._index, self._buffer[:found.start()].strip()))
                return self._passes(self._middle.search, _Stage.ARGUMENTS)
            case _Stage.ARGUMENTS:
                return self._read_arguments()
            case _Stage.AFTER:
                if self.form.has_ids:
                    self._buffer = _ID.sub("", self._buffer, count=1)
                return self._again is not None and self._passes(self._again.match, _Stage.NAME)
        return False

    def _passes(self, find: Callable[[str], re.Match[str] | None], stage: _Stage) -> bool:
        found = find(self._buffer)
        if found:
            self._buffer, self._stage = self._buffer[found.end():], stage
        return bool(found)

    def _read_arguments(self) -> bool:
        text = self._buffer if self._json.is_begun else self._buffer.lstrip()
        n = self._json.push(text)
        if n:
            self._pieces.append(CallPiece(self._index, None, text[:n], self._json.is_over))
        self._buffer = text[n:]
        if self._json.is_over:
            self._stage = _Stage.AFTER
        return self._json.is_over


def _pattern(text: str, form: CallForm) -> re.Pattern[str]:
    """The text, with a space after each mark or none: SentencePiece puts one there."""
    pieces = form.pieces(text)
    return re.compile("".join(re.escape(piece) + " ?" * (piece in form.marks) for piece in pieces))


class JsonEnd:
    """Finds where a JSON object ends, piece by piece."""

    def __init__(self) -> None:
        self.is_begun = self.is_over = False
        self._depth = 0
        self._in_text = self._is_escaped = False

    def push(self, text: str) -> int:
        """How many of these characters belong to the object."""
        self.is_begun = self.is_begun or bool(text)
        for n, char in enumerate(text, 1):
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_text:
                self._is_escaped, self._in_text = char == "\\", char != '"'
            elif char == '"':
                self._in_text = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_over = True
                    return n
        return len(text)
