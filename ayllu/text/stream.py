"""From ids to text as they come: whole characters only, and nothing that a filter still has to judge.

    decoder = StreamDecoder(tokenizer, prompt_ids)
    stop = StopFilter(["\\nUser:"])
    for id in ids:
        print(stop.push(decoder.push(id)), end="")
        if stop.stopped: break
    print(stop.push(decoder.flush()) + stop.flush(), end="")
"""

from collections.abc import Iterable, Sequence

from ayllu.text.tokenizer import Tokenizer


class StreamDecoder:
    """Text of ids, piece by piece; all pieces together equal `tokenizer.decode(ids)`.

    After `prompt_ids` the text goes on where theirs ends: a leading space stays, and a character that the prompt
    began is completed.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = (), *, skip_special: bool = False):
        self._state = tokenizer.decoding(skip_special=skip_special)
        for id in prompt_ids:
            self._state.push(id)

    def push(self, id: int) -> str:
        """Text that this id makes certain; empty while a character is incomplete."""
        return self._state.push(id)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for bytes that never became a character."""
        return self._state.flush()


class StopFilter:
    """Ends the stream before the first stop string and never shows a part of it.

    Text is held back only while it could be the beginning of a stop string. `matched` says which string ended it,
    `rest` what came after that, `n_settled` how many characters were given out.
    """

    def __init__(self, stop_strings: Iterable[str]):
        self.stop_strings = tuple(dict.fromkeys(s for s in stop_strings if s))
        self.stopped = False
        self.matched: str | None = None
        self.rest = ""
        self.n_settled = 0
        self._held = ""

    def push(self, text: str) -> str:
        """Text that can't belong to a stop string; nothing once stopped."""
        if self.stopped:
            return ""
        if not self.stop_strings:
            self.n_settled += len(text)
            return text
        held = self._held + text
        at, self.matched = self._first_match(held)
        if self.matched is not None:
            self.stopped, self._held, self.rest = True, "", held[at + len(self.matched):]
        else:
            at = len(held) - self._longest_beginning(held)
            self._held = held[at:]
        self.n_settled += at
        return held[:at]

    def flush(self) -> str:
        """The held text, which turned out to be no stop string."""
        held, self._held = self._held, ""
        self.n_settled += len(held)
        return held

    def _first_match(self, text: str) -> tuple[int, str | None]:
        """The earliest match that no longer one can precede; at one place the first of the caller's order."""
        found = [(at, n, s) for n, s in enumerate(self.stop_strings) if (at := text.find(s)) >= 0]
        return (min(found)[0], min(found)[2]) if found else (len(text), None)

    def _longest_beginning(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a stop string."""
        lengths = (n for s in self.stop_strings for n in range(min(len(s) - 1, len(text)), 0, -1)
                   if text.endswith(s[:n]))
        return max(lengths, default=0)
