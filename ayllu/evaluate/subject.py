"""Who is evaluated: a model with its tokenizer, as likelihoods and as written answers, in batches.

A text and what may follow it are tokenised together and cut after the ids that the text has alone; white space at the
text's end belongs to what follows. That is lm-evaluation-harness's convention, so that numbers can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ayllu.engine.dialogue import as_prompt
from ayllu.engine.engine import Engine, EngineSettings, context_of
from ayllu.engine.llm import LLM
from ayllu.engine.request import Request
from ayllu.errors import ConfigError
from ayllu.evaluate.likelihood import Ids, Likelihood, likelihoods
from ayllu.model.params import SamplingParams
from ayllu.model.step import Runner
from ayllu.text.stream import StopFilter, StreamDecoder
from ayllu.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Ask:
    """A prompt to be answered in words."""

    ids: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True)
class Answer:
    """What was written, without the stop string that ended it. `ids` hold all that was generated."""

    text: str
    ids: tuple[int, ...]
    finish: str


@dataclass(frozen=True)
class Subject:
    """What an evaluation needs of a model; `facts` say which one it is."""

    runner: Runner
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...] = ()
    template: str | None = None
    batch: int = 16                                      # rows computed at a time
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, model: str, *, adapter: str | None = None, dtype: str | None = None, device: str = "auto",
             batch: int = 16) -> "Subject":
        """A checkpoint by folder, file or name, with an adapter if there is one."""
        return cls.of(LLM.load(model, dtype=dtype, device=device, adapter=adapter), model, adapter, batch)

    @classmethod
    def of(cls, llm: LLM, model: str, adapter: str | None = None, batch: int = 16) -> "Subject":
        """A model that is loaded already."""
        if llm.tokenizer is None:
            raise ConfigError(f"{model} has no tokenizer, and tasks are texts: put its tokenizer.model or "
                              "tokenizer.json beside it")
        facts = {"model": model, "adapter": adapter, "fingerprint": llm.fingerprint,
                 "adapter_fingerprint": llm.adapter.digest if llm.adapter else None, "device": str(llm.runner.device),
                 "dtype": str(llm.runner.dtype).removeprefix("torch."), "path": str(llm.checkpoint.path)}
        return cls(llm.runner, llm.tokenizer, llm.eos_ids, llm.checkpoint.chat_template, batch, facts)

    @property
    def context(self) -> int:
        """Tokens that one row may have."""
        return context_of(self.runner.config)

    def encode(self, text: str) -> list[int]:
        """A prompt's ids, with BOS where the model wants it."""
        return self.tokenizer.encode(text, bos=self.tokenizer.add_bos)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], tuple[str, ...]]:
        """A conversation's ids up to where the assistant speaks, and what ends the answer besides the end ids."""
        prompt = as_prompt(messages, self.tokenizer, self.template)
        return prompt.ids, prompt.stop

    def encode_pair(self, text: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a text, and of what follows it; a text that has none begins with BOS or an end id."""
        bare = text.rstrip()
        continuation, text = text[len(bare):] + continuation, bare
        both = self.encode(text + continuation)
        n = len(self.encode(text))
        return (both[:n], both[n:]) if n else ([self.start_id], both)

    @property
    def start_id(self) -> int:
        """What stands before a text of which nothing is known."""
        ids = [i for i in (self.tokenizer.bos_id, *self.eos_ids) if i is not None]
        if not ids:
            raise ConfigError("the tokenizer has neither BOS nor an end id, so nothing can stand before a text: give "
                              "prompts that aren't empty")
        return ids[0]

    def encode_rest(self, text: str) -> list[int]:
        """Ids of a text that goes on after another one, whatever that is."""
        return self.tokenizer.codec.encode_rest(text)

    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]], other: Sequence[int] = ()) -> list[Likelihood]:
        """See likelihood.py."""
        return likelihoods(self.runner, pairs, self.batch, other)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """All answers, in order, by an engine of their own: the same asks give the same answers."""
        engine = Engine(self.runner, EngineSettings(max_rows=self.batch, max_waiting=len(asks)))
        rows = {engine.submit(Request(ask.ids, ask.params, eos_ids=self.eos_ids)): _Writing(self.tokenizer, ask)
                for ask in asks}
        while not engine.is_idle:
            for token in engine.step():
                row = rows[token.request]
                if token.sample == 0 and row.push(token.id, token.finish):
                    engine.cancel(token.request)
        return [row.answer() for row in rows.values()]


class _Writing:
    """One answer as its ids come."""

    def __init__(self, tokenizer: Tokenizer, ask: Ask) -> None:
        self.decoder = StreamDecoder(tokenizer, ask.ids, skip_special=True)
        self.filter = StopFilter(ask.params.stop)
        self.parts: list[str] = []
        self.ids: list[int] = []
        self.finish = ""

    def push(self, token: int | None, finish: str | None) -> bool:
        """Take the next id; whether a stop string has come with it."""
        if self.finish:
            return False
        if token is not None:
            self.ids.append(token)
            self.parts.append("" if finish == "stop" else self.filter.push(self.decoder.push(token)))
        if finish and not self.filter.stopped:
            self.parts.append(self.filter.push(self.decoder.flush()) + self.filter.flush())
        self.finish = "stop" if self.filter.stopped else finish or ""
        return self.filter.stopped and finish is None

    def answer(self) -> Answer:
        return Answer("".join(self.parts), tuple(self.ids), self.finish)
