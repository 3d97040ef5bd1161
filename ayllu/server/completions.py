"""OpenAI's /v1/completions, with echo and the prompt's own log-probabilities, which evaluation harnesses read."""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.errors import RequestError
from ayllu.server import openai
from ayllu.server.asking import Ask, Run, begin
from ayllu.server.beams import with_search
from ayllu.server.faults import FieldError
from ayllu.server.prompts import Prompt, Redactor, id_prompt, text_prompt
from ayllu.server.replying import streamed, whole
from ayllu.server.schema.base import Prompts
from ayllu.server.schema.completions import Completion, CompletionRequest
from ayllu.server.served import Served
from ayllu.server.sse import DONE, EVENTS, TextEvents, event
from ayllu.server.writing import Entry, Written, token_text
from ayllu.text.stream import StreamDecoder
from ayllu.text.tokenizer import Tokenizer

router = APIRouter(tags=["OpenAI"])
PATH = "/v1/completions"
MAX_TOKENS = 16                                          # of the published document


@router.post(PATH, responses={200: {"model": Completion, **EVENTS}}, response_model=None)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue texts, whole or as server-sent events."""
    served = openai.served_of(request)
    name, redactor = served.check_model(body.model), openai.redactor_for(served)
    n, width = body.n or 1, _width(body, served.limits.n)
    drawn = n if body.use_beam_search else width         # a search gives the n best of its beams itself
    n_characters = len(body.prompt) if isinstance(body.prompt, str) and not redactor.is_on else None
    prompts = await openai.prepared(lambda: prompts_of(served, body.prompt, redactor, body.add_special_tokens),
                                    n_characters)
    max_tokens = MAX_TOKENS if body.max_tokens is None else max(1, body.max_tokens)
    scored = 0 if drawn > n and body.logprobs is None else body.logprobs
    params = openai.params_of(served, body, max_tokens=max_tokens, logprobs=scored)
    form = openai.form_in(body)
    params = with_search(served, body, params, form, width, "n" if body.best_of is None else "best_of")
    reads = body.logprobs if body.echo and body.logprobs is not None else None
    if body.prompt_logprobs is not None:
        reads = max(reads or 0, body.prompt_logprobs)
    ask = Ask(model=name, prompts=prompts, params=params, n=drawn, form=form, principal=openai.who(request),
              redactor=redactor, min_tokens=body.min_tokens or 0, prompt_logprobs=reads)
    run = await begin(served, ask, request.scope)
    head = {"id": openai.new_id("cmpl-"), "object": "text_completion", "created": openai.now(), "model": name,
            "system_fingerprint": None}
    written = _Form(run, body, n)
    if body.stream:
        return streamed(run, _chunks(written, head), openai.error_event(PATH))
    return await whole(run, request, lambda answers: {**head, "choices": written.choices(best(answers, n, drawn)),
                                                      "usage": written.usage()})


def _width(body: CompletionRequest, most: int) -> int:
    """How many answers are drawn, or beams carried on, for each prompt."""
    n = body.n or 1
    width = n if body.best_of is None else body.best_of
    if width < n:
        raise FieldError("best_of", f"best_of={width} with n={n}: of so few so many can't be given; raise best_of")
    if width > max(n, most):
        raise FieldError("best_of", f"best_of={width}, but this server draws at most {most} answers: lower it")
    if width > n and body.stream:
        raise FieldError("best_of", f"best_of={width} with n={n} can't be streamed: which are the best is known at the "
                         "end; leave out one of the two")
    return width


def best(answers: Sequence[Written], n: int, drawn: int) -> list[Written]:
    """Of each prompt's answers the n of the highest mean log-probability per token, best first; all, in their order,
    where no more were drawn."""
    if n == drawn:
        return list(answers)
    groups = [answers[i:i + drawn] for i in range(0, len(answers), drawn)]
    return [answer for group in groups for answer in sorted(group, key=_score, reverse=True)[:n]]


def _score(answer: Written) -> float:
    logprobs = [entry.logprob for entry in answer.entries if entry.logprob is not None]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf


def prompts_of(served: Served, given: Prompts, redactor: Redactor, special: bool = True) -> list[Prompt]:
    """One prompt or many, as texts or ids."""
    if isinstance(given, str):
        return [text_prompt(given, served.tokenizer, redactor, special=special)]
    if not given:
        raise RequestError("prompt: an empty list; give one text, or ids")
    if isinstance(given[0], int):
        return [id_prompt(given, served.tokenizer, redactor, served.vocab_size)]
    return [text_prompt(one, served.tokenizer, redactor, special=special) if isinstance(one, str)
            else id_prompt(one, served.tokenizer, redactor, served.vocab_size) for one in given]


@dataclass
class _Form:
    """How one call's answers are written down."""

    run: Run
    body: CompletionRequest
    n: int                                               # answers that are given to each prompt

    @property
    def is_silent(self) -> bool:
        """max_tokens=0: only the prompt is wanted; the one token that the engine needs to choose is left out."""
        return self.body.max_tokens == 0

    def usage(self) -> dict[str, Any]:
        """Tokens so far."""
        return openai.usage_of(self.run, n_answer=0 if self.is_silent else None).model_dump()

    def ids(self, ids: Sequence[int]) -> dict[str, Any]:
        """The ids, if wanted."""
        return {"token_ids": list(ids)} if self.body.return_token_ids else {}

    def choices(self, answers: Sequence[Written]) -> list[dict[str, Any]]:
        """All answers at once."""
        found = []
        for index, answer in enumerate(answers):
            text, entries = ("", ()) if self.is_silent else (answer.text, answer.entries)
            found.append({**self.choice(index, text, entries, is_first=True), "finish_reason": _finish(answer.finish),
                          **self.ids(answer.ids)})
        return found

    def choice(self, index: int, text: str, entries: Sequence[Entry], *, is_first: bool) -> dict[str, Any]:
        """A part of an answer; with echo the first one begins with the prompt."""
        tokenizer, number = self.run.served.tokenizer, index // self.n
        prompt, body = self.run.ask.prompts[number], self.body
        base = len(prompt.text) if body.echo else 0
        rows = [(e.id, e.logprob, e.top, base + e.offset) for e in entries]
        found: dict[str, Any] = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
        if is_first and body.echo:
            found["text"] = prompt.text + text
            rows = self._prompt_rows(number) + rows
        if body.logprobs is not None:
            found["logprobs"] = _logprobs(tokenizer, rows, body.logprobs)
        if is_first and body.prompt_logprobs is not None:
            found["prompt_logprobs"] = openai.prompt_logprobs(self.run, number)
        if is_first and body.return_token_ids:
            found["prompt_token_ids"] = prompt.ids
        return found

    def _prompt_rows(self, number: int) -> list[Any]:
        if self.body.logprobs is None:
            return []
        prompt, start = self.run.ask.prompts[number], self.run.starts[number]
        decoder, at, rows = StreamDecoder(self.run.served.tokenizer, skip_special=True), 0, []
        known = zip(prompt.ids, start.prompt_logprobs or (), start.prompt_top or (), strict=True)
        for id, logprob, top in known:
            rows.append((id, logprob, top, at))
            at += len(decoder.push(id))
        return rows


def _logprobs(tokenizer: Tokenizer, rows: Sequence[Any], k: int) -> dict[str, Any]:
    tops: list[dict[str, float] | None] = []
    for id, logprob, top, _ in rows:
        table: dict[str, float] = {}
        for other, value in [*list(top)[:k], (id, logprob)]:
            text = token_text(tokenizer, other)[0]       # a byte piece may read like a whole one: the likelier counts
            table[text] = max(openai.finite(value), table.get(text, -9999.0))
        tops.append(None if logprob is None else table)
    return {"tokens": [token_text(tokenizer, id)[0] for id, *_ in rows],
            "token_logprobs": [None if logprob is None else openai.finite(logprob) for _, logprob, *_ in rows],
            "top_logprobs": tops, "text_offset": [offset for *_, offset in rows]}


def _finish(finish: str | None) -> str:
    return "stop" if finish == "stop" else "length"


async def _chunks(form: _Form, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    body, plain = form.body, dict[int, TextEvents]()     # of the answers that have begun
    wants_usage = bool(body.stream_options and body.stream_options.include_usage)
    extra = {"usage": None} if wants_usage else {}
    is_plain = not form.is_silent and body.logprobs is None and not body.return_token_ids

    def chunk(choice: dict[str, Any]) -> dict[str, Any]:
        return {**head, "choices": [choice], **extra}

    async with aclosing(form.run.events()) as events:
        async for e in events:
            is_first = e.choice not in plain
            if is_plain and not is_first and e.piece.finish is None:
                if e.piece.text:
                    yield plain[e.choice](e.piece.text)
                continue
            if is_first:
                plain[e.choice] = TextEvents(partial(lambda index, text: chunk(
                    form.choice(index, text, (), is_first=False)), e.choice))
            text, entries = ("", ()) if form.is_silent else (e.piece.text, e.piece.entries)
            if text or entries or is_first or e.piece.finish is not None or form.ids(e.piece.ids):
                choice = {**form.choice(e.choice, text, entries, is_first=is_first), **form.ids(e.piece.ids)}
                choice["finish_reason"] = _finish(e.piece.finish) if e.piece.finish is not None else None
                yield event(chunk(choice))
    if wants_usage:
        yield event({**head, "choices": [], "usage": form.usage()})
    yield DONE
