"""OpenAI's /v1/chat/completions."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server import openai
from ayllu.server.asking import Ask, Event, Run, begin
from ayllu.server.beams import with_search
from ayllu.server.faults import FieldError
from ayllu.server.media import shows
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.replying import streamed, whole
from ayllu.server.schema import chat as schema
from ayllu.server.schema.media import as_text, placed
from ayllu.server.served import Served
from ayllu.server.sse import DONE, EVENTS, TextEvents, event
from ayllu.server.tools import History, ToolUse, arguments_in, choice_of, function_tools, planned
from ayllu.server.writing import Written
from ayllu.text.call_reader import CallPiece

router = APIRouter(tags=["OpenAI"])
PATH = "/v1/chat/completions"


@router.post(PATH, responses={200: {"model": schema.ChatCompletion, **EVENTS}}, response_model=None)
async def chat_completions(body: schema.ChatRequest, request: Request) -> Response:
    """The assistant's next message, whole or as server-sent events."""
    served = openai.served_of(request)
    name, redactor = served.check_model(body.model), openai.redactor_for(served)
    mode, names = choice_of(body.tool_choice)
    use = ToolUse(function_tools(body.tools), mode, names, body.parallel_tool_calls is not False)
    form, calls = await openai.prepared(lambda: planned(served, use, openai.form_in(body)))
    prompt = await openai.prepared(lambda: prompt_of(served, body.messages, body, redactor),
                                   shows=shows([message.content for message in body.messages]))
    if body.top_logprobs and not body.logprobs:
        raise FieldError("top_logprobs", "top_logprobs needs logprobs=true")
    params = openai.params_of(served, body, logprobs=(body.top_logprobs or 0) if body.logprobs else None,
                              max_tokens=body.max_completion_tokens or body.max_tokens)
    params = with_search(served, body, params, form, body.n or 1, "n")
    ask = Ask(model=name, prompts=[prompt], params=params, n=body.n or 1, form=form, calls=calls,
              principal=openai.who(request), redactor=redactor, min_tokens=body.min_tokens or 0,
              prompt_logprobs=body.prompt_logprobs)
    run = await begin(served, ask, request.scope)
    head = {"id": openai.new_id("chatcmpl-"), "created": openai.now(), "model": name}
    if body.stream:
        return streamed(run, _chunks(run, body, head), openai.error_event(PATH))
    return await whole(run, request, lambda answers: _whole(run, body, head, answers))


def prompt_of(served: Served, messages: list[schema.ChatMessage], options: schema.ChatOptions,
              redactor: Redactor) -> Prompt:
    """The ids of a chat."""
    use = ToolUse(function_tools(options.tools))
    use.check(served.limits.tools)
    return chat_prompt(_turns(messages), served, redactor, tools=use.tools, goes_on=options.continue_final_message,
                       variables=options.chat_template_kwargs,
                       add_generation_prompt=options.add_generation_prompt is not False)


def _turns(messages: list[schema.ChatMessage]) -> list[dict[str, Any]]:
    history = History()
    for n, message in enumerate(messages):
        if message.tool_call_id is not None:
            history.result(as_text(message.content), message.tool_call_id, f"messages.{n}.tool_call_id")
        elif message.tool_calls:
            where = f"messages.{n}.tool_calls.{{}}.function.arguments"
            history.call(as_text(message.content), [
                (call.id, call.function.name, arguments_in(call.function.arguments, where.format(k)))
                for k, call in enumerate(message.tool_calls)])
        else:
            history.say(message.role, placed(message.content, f"messages.{n}.content"),
                        **({"name": message.name} if message.name else {}))
    return history.turns


def _whole(run: Run, body: schema.ChatRequest, head: dict[str, Any], answers: list[Written]) -> dict[str, Any]:
    tokenizer = run.served.tokenizer
    choices = []
    for index, answer in enumerate(answers):
        logprobs = openai.content_logprobs(tokenizer, answer.entries) if body.logprobs else None
        choices.append(schema.ChatChoice(
            index=index, message=_message(answer), finish_reason=openai.finish_of(answer),
            logprobs=None if logprobs is None else schema.ChatLogprobs.model_validate({"content": logprobs})))
    found = schema.ChatCompletion(**head, choices=choices, usage=openai.usage_of(run)).model_dump()
    for choice in found["choices"]:
        if not choice["message"]["tool_calls"]:
            del choice["message"]["tool_calls"]
    if body.return_token_ids:
        found["prompt_token_ids"] = run.ask.prompts[0].ids
        for choice, answer in zip(found["choices"], answers, strict=True):
            choice["token_ids"] = list(answer.ids)
    if body.prompt_logprobs is not None:
        found["prompt_logprobs"] = openai.prompt_logprobs(run, 0)
    return found


def _message(answer: Written) -> schema.AnswerMessage:
    calls = [schema.AnswerCall(id=openai.new_id("call_"), function=schema.AnswerFunction(
        name=call.name, arguments=call.arguments)) for call in answer.calls]
    return schema.AnswerMessage(content=None if calls and not answer.text else answer.text, tool_calls=calls)


async def _chunks(run: Run, body: schema.ChatRequest, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Role first, once for each answer; then text and calls; then why it ended; then, if wanted, usage without choices.
    """
    options = body.stream_options
    wants_usage = bool(options and options.include_usage)
    always = wants_usage and bool(options and options.continuous_usage_stats)

    def value(choices: list[dict[str, Any]], *, is_last: bool = False) -> dict[str, Any]:
        usage = openai.usage_of(run).model_dump() if is_last or always else None
        return {**head, "object": "chat.completion.chunk", "choices": choices, "system_fingerprint": None,
                **({"usage": usage} if wants_usage else {})}

    def chunk(choices: list[dict[str, Any]], *, is_last: bool = False) -> bytes:
        return event(value(choices, is_last=is_last))

    written = [Written() for _ in run.writers]
    is_plain = not (body.logprobs or body.return_token_ids or always)
    plain = [TextEvents(partial(lambda index, text: value([_delta(index, {"content": text})]), index))
             for index in range(len(run.writers))]
    for index in range(len(run.writers)):
        yield chunk([_delta(index, {"role": "assistant", "content": "", "refusal": None})])
    async with aclosing(run.events()) as events:
        async for e in events:
            logprobs = openai.content_logprobs(run.served.tokenizer, e.piece.entries) if body.logprobs else []
            if is_plain and e.piece.text:
                yield plain[e.choice](e.piece.text)
            elif e.piece.text or logprobs or (body.return_token_ids and e.piece.ids):
                yield chunk([_with_extras(_delta(e.choice, {"content": e.piece.text}), e, body, logprobs)])
            for part in e.piece.calls:
                yield chunk([_delta(e.choice, {"tool_calls": [_part(part)]})])
            written[e.choice].add(e.piece)
            if e.piece.finish is not None:
                yield chunk([_delta(e.choice, {}, openai.finish_of(written[e.choice]))])
    if wants_usage:
        yield chunk([], is_last=True)
    yield DONE


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _part(part: CallPiece) -> dict[str, Any]:
    """Of a call: id, type and name first, then pieces of its arguments."""
    if part.name is None:
        return {"index": part.index, "function": {"arguments": part.arguments}}
    return {"index": part.index, "id": openai.new_id("call_"), "type": "function",
            "function": {"name": part.name, "arguments": ""}}


def _with_extras(choice: dict[str, Any], e: Event, body: schema.ChatRequest,
                 logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if body.logprobs:
        choice["logprobs"] = {"content": logprobs, "refusal": None}
    if body.return_token_ids:
        choice["token_ids"] = list(e.piece.ids)
    return choice
