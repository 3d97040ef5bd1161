"""What OpenAI's chat and text completions share: settings, usage, log-probabilities."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from ayllu.model.params import SamplingParams
from ayllu.principal import Principal
from ayllu.server.asking import Form, Run, form_of
from ayllu.server.faults import FieldError, body_of
from ayllu.server.prompts import Redactor
from ayllu.server.schema.chat import CachedTokens, Usage
from ayllu.server.schema.sampling import Sampling
from ayllu.server.served import Served, logit_bias_of
from ayllu.server.sse import event
from ayllu.server.writing import Entry, Written, token_text
from ayllu.text.tokenizer import Tokenizer

DEFAULTS = {"temperature": 1.0, "top_p": 1.0}            # of the published document
SHOWN = ThreadPoolExecutor(2, thread_name_prefix="ayllu-senses")
SHORT = 2000                                             # characters that are tokenised at once: 0.1 ms
T = TypeVar("T")


def served_of(request: Request) -> Served:
    """The model behind this application."""
    return request.app.state.served


def who(request: Request) -> Principal:
    """Who asks, as the gate found."""
    return request.scope["ayllu.principal"]


def redactor_for(served: Served) -> Redactor:
    """A new one for each call, since it counts."""
    return Redactor(served.redact)


async def prepared(make: Callable[[], T], n_characters: int | None = None, shows: bool = False) -> T:
    """Prompts are written in a thread: a long text or a template must not hold up the other streams. A short plain text
    takes less time than the way there and back. Those that show images or sounds have threads of their own."""
    if shows:
        return await asyncio.get_running_loop().run_in_executor(SHOWN, make)
    if n_characters is not None and n_characters <= SHORT:
        return make()
    return await asyncio.to_thread(make)


def params_of(served: Served, body: Sampling, *, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
    """The engine's settings for a call."""
    return served.params(DEFAULTS, {
        "temperature": body.temperature, "top_p": body.top_p, "min_p": body.min_p, "typical_p": body.typical_p,
        "top_k": None if body.top_k is None else max(0, body.top_k), "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty,
        "logit_bias": logit_bias_of(body.logit_bias), "seed": seed_of(body.seed), "stop": tuple(body.stop or ()),
        "stop_ids": tuple(body.stop_token_ids or ()), "ignore_eos": body.ignore_eos, "max_tokens": max_tokens,
        "logprobs": logprobs})


def form_in(body: Sampling) -> Form | None:
    """The form that a call asks for, in OpenAI's way or in vLLM's."""
    if body.structured_outputs is not None:
        if body.response_format is not None and body.response_format.grammar is not None:
            raise FieldError("structured_outputs", "structured_outputs and response_format both ask for a form: give "
                             "one")
        return form_of(body.structured_outputs.form, "structured_outputs")
    return form_of(body.response_format.grammar, "response_format") if body.response_format else None


def seed_of(seed: int | None) -> int | None:
    """The published type is a signed number of 64 bits."""
    return None if seed is None else seed % 2**64


def new_id(prefix: str) -> str:
    """One id for an answer and all of its chunks."""
    return prefix + secrets.token_hex(12)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def usage_of(run: Run, *, n_answer: int | None = None) -> Usage:
    """Tokens so far."""
    n = run.completion_tokens if n_answer is None else n_answer
    return Usage(prompt_tokens=run.prompt_tokens, completion_tokens=n, total_tokens=run.prompt_tokens + n,
                 prompt_tokens_details=CachedTokens(cached_tokens=run.cached_tokens))


def content_logprobs(tokenizer: Tokenizer, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The form of chats and responses; end ids are no content."""
    def one(id: int, logprob: float | None) -> dict[str, Any]:
        text, data = token_text(tokenizer, id)
        return {"token": text, "logprob": finite(logprob), "bytes": data}

    return [{**one(e.id, e.logprob), "top_logprobs": [one(*pair) for pair in e.top]} for e in entries if not e.is_end]


def prompt_logprobs(run: Run, number: int) -> list[dict[str, Any] | None]:
    """vLLM's form: for each id of one of the prompts, log-probabilities by id."""
    tokenizer, ids, start = run.served.tokenizer, run.ask.prompts[number].ids, run.starts[number]
    found: list[dict[str, Any] | None] = []
    for id, logprob, top in zip(ids, start.prompt_logprobs or (), start.prompt_top or (), strict=True):
        if logprob is None:
            found.append(None)
            continue
        both = {**dict(top), id: logprob}
        found.append({str(i): {"logprob": finite(p), "decoded_token": token_text(tokenizer, i)[0]}
                      for i, p in both.items()})
    return found


def finite(logprob: float | None) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what is next to impossible."""
    return -9999.0 if logprob is None or logprob < -9999 else logprob


def finish_of(answer: Written) -> Literal["stop", "length", "tool_calls"]:
    """OpenAI's word for why an answer ended. A call that isn't whole was cut, whatever did it."""
    if answer.finish != "stop" or not all(call.is_whole for call in answer.calls):
        return "length"
    return "tool_calls" if answer.calls else "stop"


def error_event(path: str) -> Callable[[Any], bytes]:
    """How a stream tells of an error."""
    return lambda fault: event(body_of(path, fault))
