"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.asking import Ask, Form, Run, begin, form_of
from ayllu.server.faults import body_of
from ayllu.server.openai import new_id, prepared, redactor_for, served_of, who
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.schema import messages as schema
from ayllu.server.schema.forms import json_form
from ayllu.server.schema.messages import CountRequest, MessageRequest, MessageUsage
from ayllu.server.served import Served
from ayllu.server.sse import EVENTS, Json, Stream, event, guarded, or_gone

router = APIRouter(tags=["Anthropic"])
PATH = "/v1/messages"
DEFAULTS = {"temperature": 1.0}                          # of the published document


@router.post(PATH, responses={200: {"model": schema.Message, **EVENTS}}, response_model=None)
async def messages(body: MessageRequest, request: Request) -> Response:
    """The assistant's next message, whole or as server-sent events."""
    served = served_of(request)
    name, redactor = served.check_model(body.model), redactor_for(served)
    prompt = await prepared(lambda: _prompt(served, body, redactor))
    params = served.params(DEFAULTS, {
        "temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_tokens,
        "top_k": None if body.top_k is None else max(0, body.top_k), "stop": tuple(body.stop_sequences or ())})
    run = await begin(served, Ask(model=name, prompts=[prompt], params=params, principal=who(request),
                                  redactor=redactor, form=_form(body), at_most=True), request.scope)
    id = new_id("msg_")
    if body.stream:
        return Stream(guarded(_events(run, id, name), lambda fault: event(body_of(PATH, fault), "error")), run.close,
                      headers=run.headers)
    answers = await or_gone(request, run.whole())
    if answers is None:
        return Response(status_code=499)
    reason, stop = _reason(run, answers[0].finish, answers[0].stop)
    return Json(schema.Message(id=id, model=name, content=[schema.TextBlock(text=answers[0].text)],
                               stop_reason=reason, stop_sequence=stop,         # type: ignore[arg-type]
                               usage=_usage(run)).model_dump(), headers=run.headers)


@router.post(PATH + "/count_tokens", responses={200: {"model": schema.TokenCount}}, response_model=None)
async def count_tokens(body: CountRequest, request: Request) -> Response:
    """How many tokens the same prompt has; nothing is generated."""
    served = served_of(request)
    served.check_model(body.model)
    prompt = await prepared(lambda: _prompt(served, body, redactor_for(served)))
    return Json(schema.TokenCount(input_tokens=len(prompt.ids)).model_dump())


def _form(body: MessageRequest) -> Form | None:
    config = body.output_config
    return form_of(json_form(config.format.schema_), "output_config.format") if config and config.format else None


def _prompt(served: Served, body: CountRequest, redactor: Redactor) -> Prompt:
    turns: list[dict[str, Any]] = [{"role": "system", "content": body.system}] if body.system else []
    turns += [{"role": turn.role, "content": turn.content or ""} for turn in body.messages]
    return chat_prompt(turns, served.tokenizer, served.chat_template, redactor,
                       goes_on=turns[-1]["role"] == "assistant")


def _usage(run: Run) -> MessageUsage:
    """What was read from the cache is not counted among the input."""
    return MessageUsage(input_tokens=run.prompt_tokens - run.cached_tokens, cache_read_input_tokens=run.cached_tokens,
                        output_tokens=run.completion_tokens)


def _reason(run: Run, finish: str | None, stop: str | None) -> tuple[str, str | None]:
    """Anthropic's word for why it ended; a stop string of ours (a transcript's next turn) is an end of turn."""
    if stop is not None and stop in run.ask.params.stop:
        return "stop_sequence", stop
    return ("end_turn" if finish == "stop" else "max_tokens"), None


async def _events(run: Run, id: str, name: str) -> AsyncGenerator[bytes, None]:
    """The message's start waits for the first token, since it tells what was found in the cache."""
    is_begun = False
    async with aclosing(run.events()) as events:
        async for e in events:
            if not is_begun:
                is_begun = True
                usage = _usage(run).model_copy(update={"output_tokens": 1})
                start = schema.Message(id=id, model=name, content=[], stop_reason=None, usage=usage)
                yield event({"type": "message_start", "message": start.model_dump()}, "message_start")
                yield event({"type": "content_block_start", "index": 0,
                             "content_block": schema.TextBlock(text="").model_dump()}, "content_block_start")
                yield event({"type": "ping"}, "ping")
            if e.piece.text:
                yield event({"type": "content_block_delta", "index": 0,
                             "delta": {"type": "text_delta", "text": e.piece.text}}, "content_block_delta")
            if e.piece.finish is not None:
                reason, stop = _reason(run, e.piece.finish, e.piece.stop)
    yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    yield event({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": stop},
                 "usage": _usage(run).model_dump()}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")
