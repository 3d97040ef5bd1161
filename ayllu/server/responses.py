"""OpenAI's /v1/responses: one message out, nothing remembered."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.asking import Ask, Form, Run, begin, form_of
from ayllu.server.openai import (
    DEFAULTS,
    content_logprobs,
    new_id,
    now,
    prepared,
    redactor_for,
    seed_of,
    served_of,
    who,
)
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.schema import responses as schema
from ayllu.server.schema.responses import ResponseRequest
from ayllu.server.served import Served
from ayllu.server.sse import EVENTS, Json, Stream, event, guarded, or_gone
from ayllu.server.writing import Written

router = APIRouter(tags=["OpenAI"])
PATH = "/v1/responses"
LOGPROBS = "message.output_text.logprobs"


@router.post(PATH, responses={200: {"model": schema.Response, **EVENTS}}, response_model=None)
async def responses(body: ResponseRequest, request: Request) -> Response:
    """Answer an input, whole or as server-sent events."""
    served = served_of(request)
    name, redactor = served.check_model(body.model), redactor_for(served)
    prompt = await prepared(lambda: _prompt(served, body, redactor))
    wants_logprobs = LOGPROBS in (body.include or []) or bool(body.top_logprobs)
    params = served.params(DEFAULTS, {
        "temperature": body.temperature, "top_p": body.top_p, "min_p": body.min_p, "seed": seed_of(body.seed),
        "top_k": None if body.top_k is None else max(0, body.top_k), "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty,
        "stop": tuple(body.stop or ()), "max_tokens": body.max_output_tokens,
        "logprobs": (body.top_logprobs or 0) if wants_logprobs else None})
    run = await begin(served, Ask(model=name, prompts=[prompt], params=params, principal=who(request),
                                  redactor=redactor, form=_form(body)), request.scope)
    reply = _Reply(run, body, name)
    if body.stream:
        return Stream(guarded(_events(reply), reply.failed), run.close, headers=run.headers)
    answers = await or_gone(request, run.whole())
    return Response(status_code=499) if answers is None else Json(reply.whole(answers[0]), headers=run.headers)


def _form(body: ResponseRequest) -> Form | None:
    return form_of(body.text.format.grammar, "text.format") if body.text and body.text.format else None


def _prompt(served: Served, body: ResponseRequest, redactor: Redactor) -> Prompt:
    turns: list[dict[str, Any]] = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        turns.append({"role": "user", "content": body.input})
    else:
        turns += [{"role": item.role, "content": item.content or ""} for item in body.input]
    return chat_prompt(turns, served, redactor)


class _Reply:
    """The response object at any moment, and the events about it with their running number."""

    def __init__(self, run: Run, body: ResponseRequest, name: str) -> None:
        self.run, self.body, self.name = run, body, name
        self.id, self.item_id, self.created = new_id("resp_"), new_id("msg_"), now()
        self.written = Written()
        self.logprobs: list[dict[str, Any]] = []
        self._n_events = 0

    def whole(self, answer: Written) -> dict[str, Any]:
        """The finished response."""
        self.take(answer)
        return self.response()

    def take(self, answer: Written) -> None:
        """What was written, with log-probabilities if they were asked for."""
        self.written = answer
        if self.run.ask.params.logprobs is not None:
            self.logprobs = content_logprobs(self.run.served.tokenizer, answer.entries)

    @property
    def status(self) -> str:
        """Of the response and of its one item."""
        return {None: "in_progress", "stop": "completed"}.get(self.written.finish, "incomplete")

    def part(self) -> schema.OutputText:
        """The text so far."""
        return schema.OutputText(text=self.written.text, logprobs=self.logprobs)

    def item(self, *, is_empty: bool = False) -> dict[str, Any]:
        """The message so far."""
        return schema.OutputMessage(id=self.item_id, status=self.status,       # type: ignore[arg-type]
                                    content=[] if is_empty else [self.part()]).model_dump()

    def response(self, error: dict[str, str] | None = None) -> dict[str, Any]:
        """The response so far."""
        params, is_open = self.run.ask.params, self.written.finish is None
        n_in, n_out = self.run.prompt_tokens, self.run.completion_tokens
        usage = schema.ResponseUsage(
            input_tokens=n_in, output_tokens=n_out, total_tokens=n_in + n_out,
            input_tokens_details=schema.InputDetails(cached_tokens=self.run.cached_tokens))
        return schema.Response(
            id=self.id, created_at=self.created, completed_at=None if is_open else now(),
            status="failed" if error else self.status,                         # type: ignore[arg-type]
            error=error, incomplete_details=schema.Incomplete() if self.status == "incomplete" else None,
            instructions=self.body.instructions, max_output_tokens=self.body.max_output_tokens,
            metadata=self.body.metadata or {}, model=self.name,
            output=[] if is_open else [schema.OutputMessage.model_validate(self.item())],
            text=self._text(), temperature=params.temperature, top_p=params.top_p,
            top_logprobs=self.body.top_logprobs or 0, usage=None if is_open else usage).model_dump()

    def _text(self) -> dict[str, Any]:
        form = self.body.text.format if self.body.text else None
        return {"format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}}

    def tell(self, type: str, **more: Any) -> bytes:
        """One event."""
        number, self._n_events = self._n_events, self._n_events + 1
        return event({"type": type, "sequence_number": number, **more}, type)

    def failed(self, fault: Any) -> bytes:
        """The last event of a stream that broke."""
        error = {"code": "server_error", "message": fault.message}
        return self.tell("response.failed", response=self.response(error))


async def _events(reply: _Reply) -> AsyncGenerator[bytes, None]:
    place = {"output_index": 0, "item_id": reply.item_id, "content_index": 0}
    yield reply.tell("response.created", response=reply.response())
    yield reply.tell("response.in_progress", response=reply.response())
    yield reply.tell("response.output_item.added", output_index=0, item=reply.item(is_empty=True))
    yield reply.tell("response.content_part.added", **place, part=reply.part().model_dump())
    answer = Written()
    async with aclosing(reply.run.events()) as events:
        async for e in events:
            answer.add(e.piece)
            wants = reply.run.ask.params.logprobs is not None
            logprobs = content_logprobs(reply.run.served.tokenizer, e.piece.entries) if wants else []
            if e.piece.text or logprobs:
                yield reply.tell("response.output_text.delta", **place, delta=e.piece.text, logprobs=logprobs)
    reply.take(answer)
    yield reply.tell("response.output_text.done", **place, text=answer.text, logprobs=reply.logprobs)
    yield reply.tell("response.content_part.done", **place, part=reply.part().model_dump())
    yield reply.tell("response.output_item.done", output_index=0, item=reply.item())
    yield reply.tell(f"response.{reply.status}", response=reply.response())
