"""One call, whatever its API: prompts and settings in, pieces of n answers out."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from ayllu.engine.request import Grammar, Request, Start
from ayllu.errors import EngineFailed, Overloaded, RequestError
from ayllu.model.params import SamplingParams
from ayllu.principal import Principal
from ayllu.server.access import Tally
from ayllu.server.bridge import AnyService, Tokens, submit
from ayllu.server.faults import FieldError
from ayllu.server.prompts import Prompt, Redactor
from ayllu.server.queueing import Tell
from ayllu.server.served import Served
from ayllu.server.writing import Calls, Piece, Writer, Written


@dataclass(frozen=True)
class Form:
    """The form that the answers must have, and the field that asked for it; `parts` of it with their own fields."""

    grammar: Grammar
    param: str
    parts: tuple[tuple[str, Grammar], ...] = ()


def form_of(grammar: Grammar | None, param: str) -> Form | None:
    """None for plain text."""
    return None if grammar is None else Form(grammar, param)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a caller wants: `n` answers to each prompt; `params.n` is the engine's affair and stays 1."""

    model: str                                           # as it was asked for, checked: the model's or an adapter's
    prompts: Sequence[Prompt]
    params: SamplingParams
    n: int = 1
    principal: Principal
    min_tokens: int = 0
    prompt_logprobs: int | None = None
    form: Form | None = None
    calls: Calls | None = None                           # of tools, where they may come
    at_most: bool = False                                # max_tokens may be more than the context has room for
    priority: int = 0                                    # below 0: behind others
    redactor: Redactor = field(default_factory=lambda: Redactor(False))


class Event(NamedTuple):
    """A piece of answer `choice` (prompt * n + sample); `start` once for each prompt, with its first event."""

    choice: int
    piece: Piece
    start: Start | None = None


class Run:
    """The answers as they come. `usage` is right once all events were read."""

    def __init__(self, served: Served, ask: Ask, tokens: Tokens, tally: Tally, begun: float) -> None:
        self.served, self.ask, self.tokens, self.tally, self.begun = served, ask, tokens, tally, begun
        self.writers = [Writer(served.tokenizer, prompt.ids, (*ask.params.stop, *prompt.stop), prompt.strip, ask.calls)
                        for prompt in ask.prompts for _ in range(ask.n)]
        self.starts: dict[int, Start] = {}               # by prompt
        self.first_s: float | None = None                # until the first token
        self._call = served.queue.enter(len(tokens.streams))

    @property
    def seed(self) -> int:
        """Repeats the first answer."""
        return self.tokens.streams[0].seed

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(len(prompt.ids) for prompt in self.ask.prompts)

    @property
    def cached_tokens(self) -> int:
        """Of them, those found in the prefix cache."""
        return sum(start.cached_tokens for start in self.starts.values())

    @property
    def completion_tokens(self) -> int:
        """Of all answers, with end ids and what a stop string cut off."""
        return sum(writer.n_tokens for writer in self.writers)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says besides the API's own form."""
        found = ", ".join(f"{kind}={n}" for kind, n in sorted(self.ask.redactor.counts.items()))
        return {"x-ayllu-redacted": found or "none"} if self.ask.redactor.is_on else {}

    async def events(self) -> AsyncGenerator[Event, None]:
        """Pieces of all answers in the order of their tokens. Closing the iterator cancels what still runs."""
        n_open, last = len(self.writers), self.begun
        try:
            while n_open:
                request, token = await anext(self.tokens)
                choice, prompt = self._places(request, token.sample)
                writer = self.writers[choice]
                if writer.finish is not None:            # "cancelled", after a stop string
                    continue
                if token.finish == "error":
                    self._fail(token.error or "the engine gave no reason")
                if token.finish == "cancelled":
                    raise Overloaded("the server is shutting down: try again later")
                last = self._observe(last)
                start = token.start if prompt not in self.starts else None
                if start is not None:
                    self.starts[prompt] = start
                piece = writer.push(token)
                if piece.finish is not None:
                    n_open -= 1
                    if token.finish is None:
                        self.tokens.cancel(request, token.sample)
                yield Event(choice, piece, start)
        finally:
            self.close()
            self._account()

    def close(self) -> None:
        """Nobody reads on, or ever began to."""
        self.tokens.close()
        self._leave_queue()

    def listen(self, tell: Tell) -> None:
        """Have its place in the queue told, until the first token."""
        self.served.queue.listen(self._call, tell)

    async def whole(self) -> list[Written]:
        """All answers when they are finished."""
        answers = [Written() for _ in self.writers]
        async with aclosing(self.events()) as events:
            async for event in events:
                answers[event.choice].add(event.piece)
        return answers

    def _fail(self, says: str) -> NoReturn:
        """No id could be chosen: by the caller's own biases or form, or by damaged weights."""
        if self.ask.params.logit_bias:
            raise FieldError("logit_bias", f"logit_bias leaves no id to choose, or {says}")
        if self.ask.form is not None:
            raise FieldError(self.ask.form.param, f"{self.ask.form.param}: {says}")
        raise EngineFailed(says)

    def _places(self, request: int, sample: int) -> tuple[int, int]:
        """Which answer, and to which prompt: a request holds n samples, or one of n that are equal."""
        n = self.ask.n
        is_split = len(self.tokens.streams) > len(self.ask.prompts)
        return (request, request // n) if is_split else (request * n + sample, request)

    def _leave_queue(self) -> None:
        self.served.queue.leave(self._call)

    def _observe(self, last: float) -> float:
        now = time.perf_counter()
        if self.first_s is None:
            self._leave_queue()
            self.first_s = now - self.begun
            self.served.metrics.first_token.observe(self.first_s)
        elif self.ask.params.num_beams == 1:             # beams come all at once
            self.served.metrics.between_tokens.observe(now - last)
        return now

    def _account(self) -> None:
        self.tally.prompt_tokens += self.prompt_tokens
        self.tally.answer_tokens += self.completion_tokens
        self.served.metrics.prompt_tokens.inc(self.prompt_tokens)
        self.served.metrics.cached_tokens.inc(self.cached_tokens)
        self.served.metrics.answer_tokens.inc(self.completion_tokens)
        for kind, n in self.ask.redactor.counts.items():
            self.served.metrics.redacted.labels(kind).inc(n)


async def begin(served: Served, ask: Ask, scope: Any) -> Run:
    """Check and queue a call. Whatever is wrong with it is raised here, before an answer begins."""
    begun = time.perf_counter()
    served.limits.check(ask.params, ask.n, len(ask.prompts))
    if ask.form is not None:
        await _check_form(served, ask.form)
    tokens = await submit(served.service, list(_requests(served, ask)), served.limits.request_s)
    scope["ayllu.coming"].end()
    return Run(served, ask, tokens, scope["ayllu.tally"], begun)


async def _check_form(served: Served, form: Form) -> None:
    """Compile it away from the event loop; what is wrong with it has its field's name. The engine keeps it."""
    whole = await _fault(served.service, form.param, form.grammar)
    if whole is None:
        return
    for param, grammar in form.parts:
        fault = await _fault(served.service, param, grammar)
        if fault is not None:
            raise fault
    raise whole


async def _fault(service: AnyService, param: str, grammar: Grammar) -> FieldError | None:
    try:
        await service.check_grammar(grammar)
    except RequestError as error:
        return FieldError(param, f"{param}: {error}")
    return None


def _requests(served: Served, ask: Ask) -> Sequence[Request]:
    """One request for each prompt, whose samples share its pages; of n greedy answers, which are equal, one each."""
    is_split = ask.params.temperature == 0
    found = []
    for prompt in ask.prompts:
        params = ask.params.model_copy(update={"stop": (), "n": 1 if is_split else ask.n,
                                               "max_tokens": _max_tokens(served, ask, len(prompt.ids))})
        request = Request(ids=tuple(prompt.ids), params=params, eos_ids=served.eos_ids, min_tokens=ask.min_tokens,
                          prompt_logprobs=ask.prompt_logprobs, tenant=ask.principal.tenant, priority=ask.priority,
                          adapter=served.adapter_for(ask.model, bool(prompt.media)), media=prompt.media,
                          grammar=ask.form.grammar if ask.form else None)
        found += [request] * (ask.n if is_split else 1)
    return found


def _max_tokens(served: Served, ask: Ask, n_prompt: int) -> int | None:
    room = max(1, served.context - n_prompt)             # a prompt that is too long is the engine's to refuse
    if ask.params.max_tokens is None:
        return min(room, served.limits.tokens or room)
    return min(room, ask.params.max_tokens) if ask.at_most else ask.params.max_tokens
