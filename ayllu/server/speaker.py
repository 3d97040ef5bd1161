"""A `Speaker` over the server's own engine, for applications: they run in threads, and the engine is asked through the
event loop.

Work that nobody waits for (a job) goes behind what people wait for: it has a lower priority, sends few requests at a
time, and where the queue is full it waits instead of failing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from ayllu.apps.speaker import SMALL, Answer, answer_ids, mean_of
from ayllu.engine.dialogue import ChatPrompt, Message, as_prompt
from ayllu.engine.llm import DEFAULT_MAX_TOKENS
from ayllu.errors import ContextTooLong, Overloaded, RequestError
from ayllu.model.params import SamplingParams
from ayllu.principal import Principal
from ayllu.server.access import Tally
from ayllu.server.asking import Ask, Event, Run, begin
from ayllu.server.gate import Coming
from ayllu.server.prompts import Prompt, Redactor
from ayllu.server.served import Served
from ayllu.server.writing import Written

T = TypeVar("T")
AT_A_TIME = 8                                            # requests of one job in the engine
PATIENCE_S = 600.0                                       # that a job waits for room in the queue
BEHIND = -4                                              # the priority of a job's requests


class ServedSpeech(Iterator[str]):
    """A `Speech` whose pieces come from the event loop."""

    def __init__(self, speaker: "ServedSpeaker", run: Run) -> None:
        self._speaker, self._run = speaker, run
        self._events: AsyncGenerator[Event, None] = run.events()
        self._written = Written()
        self.answer: Answer | None = None

    def __next__(self) -> str:
        """The next piece that is not empty."""
        while self.answer is None:
            try:
                event: Event | None = self._speaker.wait(self._events.__anext__())
            except StopAsyncIteration:
                event = None
            if event is None:
                self.close()
            else:
                self._written.add(event.piece)
                if event.piece.text:
                    return event.piece.text
        raise StopIteration

    def close(self) -> None:
        """Enough: the engine is told."""
        if self.answer is None:
            self.answer = _answer(self._written, self._run.prompt_tokens)
            self._speaker.wait(self._events.aclose())
            self._speaker.wait(_closed(self._run))


class ServedSpeaker:
    """The served model, or one of its adapters, for one caller. Used from threads that aren't the event loop's."""

    def __init__(self, served: Served, principal: Principal, *, model: str | None = None, is_job: bool = False,
                 tally: Tally | None = None) -> None:
        if served.loop is None:
            raise RequestError("the server is not running yet: its model can be asked once it is")
        self.served, self.principal, self.loop, self.is_job = served, principal, served.loop, is_job
        self.name = served.check_model(model)
        self.context = served.context
        self.is_small = served.n_parameters < SMALL
        self.sees, self.hears = "image" in served.takes, "audio" in served.takes
        self.ear_s = served.perception.ear_s if served.perception else 0.0
        self.tally = tally or Tally()                    # what the caller's log line says of tokens

    def stream(self, messages: Sequence[Message], **options: Any) -> ServedSpeech:
        """The next message, piece by piece."""
        prefix = options.pop("prefix", "")
        return ServedSpeech(self, self.wait(self._begin(self._prompt(messages, prefix), options)))

    def answers(self, prompts: Sequence[Sequence[Message]], **options: Any) -> list[Answer]:
        """The next message of each conversation, a few at a time."""
        prefix = options.pop("prefix", "")
        with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="ayllu-answers") as threads:
            return list(threads.map(lambda messages: self._whole(self._prompt(messages, prefix), options), prompts))

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens that are left for the answer."""
        return max(0, self.context - len(self._prompt(messages).ids))

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.served.tokenizer.encode(text, bos=False))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D): one text after the other, so that streams are held up no longer than one takes."""
        rows = [self._embedded(number, text) for number, text in enumerate(texts)]
        return np.stack(rows) if rows else np.zeros((0, self.served.service.engine.config.dim), np.float32)

    def logprobs(self, messages: Sequence[Message], answer: str) -> list[float]:
        """Log-probability of each token of an answer that is given."""
        found = self._said(messages)
        ids = answer_ids(found, answer, self.served.tokenizer)
        if not ids:
            return []
        whole = Prompt([*found.ids, *ids], "", media=found.media)
        if len(whole.ids) >= self.context:
            raise ContextTooLong(f"the conversation with the answer has {len(whole.ids)} tokens and the model's "
                                 f"context takes {self.context - 1}: shorten it")
        run = self._patiently(lambda: self._begin(whole, {"max_tokens": 1, "temperature": 0.0}, prompt_logprobs=0))
        self.wait(run.whole())
        logprobs = run.starts[0].prompt_logprobs or ()
        return [value for value in logprobs[len(found.ids):] if value is not None]

    def wait(self, asked: Coroutine[Any, Any, T]) -> T:
        """Run something on the event loop, from a thread."""
        return asyncio.run_coroutine_threadsafe(asked, self.loop).result()

    def _said(self, messages: Sequence[Message]) -> ChatPrompt:
        redactor = Redactor(self.served.redact)
        cleaned = [{**message, "content": redactor.clean_content(message["content"])} for message in messages]
        return as_prompt(cleaned, self.served.tokenizer, self.served.chat_template, self.served.perception)

    def _prompt(self, messages: Sequence[Message], prefix: str = "") -> Prompt:
        found = self._said(messages)
        ids = [*found.ids, *answer_ids(found, prefix, self.served.tokenizer)] if prefix else found.ids
        return Prompt(ids, "", found.stop, found.strip and not prefix, found.media)

    async def _begin(self, prompt: Prompt, options: dict[str, Any], prompt_logprobs: int | None = None) -> Run:
        served = self.served
        if len(prompt.ids) >= self.context:
            raise ContextTooLong(f"the conversation has {len(prompt.ids)} tokens and the model's context takes "
                                 f"{self.context}, of which one at least must be left for the answer: shorten it")
        params: SamplingParams = served.params({}, {"max_tokens": DEFAULT_MAX_TOKENS, "logprobs": 0, **options})
        ask = Ask(model=self.name, prompts=[prompt], params=params, principal=self.principal, at_most=True,
                  prompt_logprobs=prompt_logprobs, priority=BEHIND if self.is_job else 0)
        return await begin(served, ask, {"ayllu.coming": Coming(set()), "ayllu.tally": self.tally})

    def _whole(self, prompt: Prompt, options: dict[str, Any]) -> Answer:
        run = self._patiently(lambda: self._begin(prompt, options))
        return _answer(self.wait(run.whole())[0], len(prompt.ids))

    def _patiently(self, ask: Any) -> Run:
        """A job waits until the queue has room; whoever is waited for is refused as others are."""
        until, pause = time.monotonic() + PATIENCE_S, 0.05
        while True:
            try:
                return self.wait(ask())
            except Overloaded:
                if not self.is_job or time.monotonic() > until:
                    raise
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)

    def _embedded(self, number: int, text: str) -> np.ndarray:
        tokenizer = self.served.tokenizer
        ids = tokenizer.encode(Redactor(self.served.redact).clean(text), bos=tokenizer.add_bos)
        if not text:
            raise RequestError(f"text {number} is empty: leave empty texts out")
        parts = [ids[i:i + self.context] for i in range(0, len(ids), self.context)]
        adapter = self.served.adapter_of(self.name)
        vectors = [np.array(self.wait(self.served.service.embed(part, adapter))) for part in parts]
        return mean_of(vectors, [len(part) for part in parts])


async def _closed(run: Run) -> None:
    run.close()


def _answer(written: Written, prompt_tokens: int) -> Answer:
    logprobs = [entry.logprob for entry in written.entries if entry.logprob is not None]
    return Answer(written.text, "stop" if written.finish == "stop" else "length", prompt_tokens, written.n_tokens,
                  sum(logprobs) / len(logprobs) if logprobs else None)
