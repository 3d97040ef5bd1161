"""OpenAI's /v1/chat/completions."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.asking import Ask, Event, Run, begin
from ayllu.server.faults import FieldError
from ayllu.server.openai import (
    content_logprobs,
    error_event,
    form_in,
    new_id,
    now,
    params_of,
    prepared,
    prompt_logprobs,
    redactor_for,
    served_of,
    usage_of,
    who,
)
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.schema.chat import AnswerMessage, ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage, ChatRequest
from ayllu.server.served import Served
from ayllu.server.sse import DONE, EVENTS, Json, Stream, event, guarded, or_gone
from ayllu.server.writing import Written

router = APIRouter(tags=["OpenAI"])
PATH = "/v1/chat/completions"


@router.post(PATH, responses={200: {"model": ChatCompletion, **EVENTS}}, response_model=None)
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """The assistant's next message, whole or as server-sent events."""
    served = served_of(request)
    name, redactor = served.check_model(body.model), redactor_for(served)
    prompt = await prepared(lambda: prompt_of(served, body.messages, redactor, body.continue_final_message,
                                              body.chat_template_kwargs, body.add_generation_prompt))
    if body.top_logprobs and not body.logprobs:
        raise FieldError("top_logprobs", "top_logprobs needs logprobs=true")
    params = params_of(served, body, logprobs=(body.top_logprobs or 0) if body.logprobs else None,
                       max_tokens=body.max_completion_tokens or body.max_tokens)
    ask = Ask(model=name, prompts=[prompt], params=params, n=body.n or 1, form=form_in(body), principal=who(request),
              redactor=redactor, min_tokens=body.min_tokens or 0, prompt_logprobs=body.prompt_logprobs)
    run = await begin(served, ask, request.scope)
    head = {"id": new_id("chatcmpl-"), "created": now(), "model": name}
    if body.stream:
        return Stream(guarded(_chunks(run, body, head), error_event(PATH)), run.close, headers=run.headers)
    answers = await or_gone(request, run.whole())
    return Response(status_code=499) if answers is None else Json(_whole(run, body, head, answers), headers=run.headers)


def prompt_of(served: Served, messages: list[ChatMessage], redactor: Redactor, goes_on: bool,
              variables: dict[str, Any] | None, add_generation_prompt: bool | None = None) -> Prompt:
    """The ids of a chat."""
    turns = [m.model_dump(include={"role", "content", "name", "tool_calls", "tool_call_id"}, exclude_none=True)
             for m in messages]
    return chat_prompt(turns, served.tokenizer, served.chat_template, redactor, goes_on=goes_on, variables=variables,
                       add_generation_prompt=add_generation_prompt is not False)


def _whole(run: Run, body: ChatRequest, head: dict[str, Any], answers: list[Written]) -> dict[str, Any]:
    tokenizer = run.served.tokenizer
    choices = []
    for index, answer in enumerate(answers):
        logprobs = content_logprobs(tokenizer, answer.entries) if body.logprobs else None
        choices.append(ChatChoice(
            index=index, message=AnswerMessage(content=answer.text),
            finish_reason="stop" if answer.finish == "stop" else "length",
            logprobs=None if logprobs is None else ChatLogprobs.model_validate({"content": logprobs})))
    found = ChatCompletion(**head, choices=choices, usage=usage_of(run)).model_dump()
    if body.return_token_ids:
        found["prompt_token_ids"] = run.ask.prompts[0].ids
        for choice, answer in zip(found["choices"], answers, strict=True):
            choice["token_ids"] = list(answer.ids)
    if body.prompt_logprobs is not None:
        start = run.starts[0]
        found["prompt_logprobs"] = prompt_logprobs(tokenizer, run.ask.prompts[0].ids, start.prompt_logprobs or (),
                                                   start.prompt_top or ())
    return found


async def _chunks(run: Run, body: ChatRequest, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Role first, once for each answer; then text; then why it ended; then, if wanted, usage without choices."""
    options = body.stream_options
    wants_usage = bool(options and options.include_usage)
    always = wants_usage and bool(options and options.continuous_usage_stats)

    def chunk(choices: list[dict[str, Any]], *, is_last: bool = False) -> bytes:
        usage = usage_of(run).model_dump() if is_last or always else None
        return event({**head, "object": "chat.completion.chunk", "choices": choices, "system_fingerprint": None,
                      **({"usage": usage} if wants_usage else {})})

    for index in range(len(run.writers)):
        yield chunk([_delta(index, {"role": "assistant", "content": "", "refusal": None})])
    async with aclosing(run.events()) as events:
        async for e in events:
            logprobs = content_logprobs(run.served.tokenizer, e.piece.entries) if body.logprobs else []
            if e.piece.text or logprobs or (body.return_token_ids and e.piece.ids):
                yield chunk([_with_extras(_delta(e.choice, {"content": e.piece.text}), e, body, logprobs)])
            if e.piece.finish is not None:
                yield chunk([_delta(e.choice, {}, "stop" if e.piece.finish == "stop" else "length")])
    if wants_usage:
        yield chunk([], is_last=True)
    yield DONE


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _with_extras(choice: dict[str, Any], e: Event, body: ChatRequest,
                 logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if body.logprobs:
        choice["logprobs"] = {"content": logprobs, "refusal": None}
    if body.return_token_ids:
        choice["token_ids"] = list(e.piece.ids)
    return choice
