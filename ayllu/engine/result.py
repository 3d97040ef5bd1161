"""What a finished request gives, and how ids become its text on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

from ayllu.model.request import Finish, Token
from ayllu.text.stream import StopFilter, StreamDecoder
from ayllu.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Timing:
    """Seconds of one call. Requests that ran as one batch share them."""

    first_token_s: float                                 # from the call to the first token: reading the prompt
    total_s: float

    def tokens_per_s(self, n_tokens: int) -> float | None:
        """The rate after the first token; None where there was nothing to measure."""
        spent = self.total_s - self.first_token_s
        return (n_tokens - 1) / spent if n_tokens > 1 and spent > 0 else None


@dataclass(frozen=True)
class Result:
    """One continuation. `text` ends before a stop string or end id; `ids` hold all that was generated."""

    text: str                                            # empty where the checkpoint has no tokenizer
    ids: list[int]
    finish_reason: Finish                                # stop: an end id or stop string; length: max_tokens or context
    prompt_tokens: int
    prompt: int                                          # which prompt of the call
    sample: int                                          # which of its n samples
    seed: int | None                                     # repeats the text; None for beams, which draw nothing
    timing: Timing
    logprobs: list[float] | None = None                  # of ids, before penalties and temperature
    top_logprobs: list[tuple[tuple[int, float], ...]] | None = None
    score: float | None = None                           # of beams


class TextRow:
    """The text of one sequence as its ids come: whole characters, nothing of a stop string, no end ids."""

    def __init__(self, tokenizer: Tokenizer | None, prompt: Sequence[int], stop: Sequence[str],
                 strip: bool = False) -> None:
        """`strip` drops white space before the first character."""
        self.decoder = StreamDecoder(tokenizer, prompt, skip_special=True) if tokenizer else None
        self.stop = StopFilter(stop)
        self.strip = strip
        self.parts: list[str] = []
        self.tokens: list[Token] = []
        self.finish: Finish | None = None

    def push(self, token: Token) -> str:
        """Take the next token; gives what may be shown. `finish` is set when the row is over, by whatever reason."""
        self.tokens.append(token)
        self.finish = token.finish
        piece = ""
        if self.decoder is not None:
            piece = "" if token.finish == "stop" else self.stop.push(self.decoder.push(token.id))
            if self.stop.stopped:
                self.finish = "stop"
            elif token.finish is not None:
                piece += self.stop.push(self.decoder.flush()) + self.stop.flush()
        if self.strip:
            piece = piece.lstrip()
            self.strip = not piece
        self.parts.append(piece)
        return piece

    def result(self, n_prompt: int, seed: int, timing: Timing, logprobs: int | None) -> Result:
        """What came so far, as a result; a row that nothing ended was cancelled."""
        first = self.tokens[0]
        return Result(
            text="".join(self.parts), ids=[t.id for t in self.tokens], finish_reason=self.finish or "cancelled",
            prompt_tokens=n_prompt, prompt=first.prompt, sample=first.sample, seed=seed, timing=timing,
            logprobs=None if logprobs is None else [t.logprob for t in self.tokens if t.logprob is not None],
            top_logprobs=[t.top for t in self.tokens] if logprobs else None)
