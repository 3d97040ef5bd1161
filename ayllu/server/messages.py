"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.asking import Ask, Form, Run, begin, form_of
from ayllu.server.faults import FieldError, body_of
from ayllu.server.openai import finish_of, new_id, prepared, redactor_for, served_of, who
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.replying import streamed, whole
from ayllu.server.schema import messages as schema
from ayllu.server.schema.forms import json_form
from ayllu.server.schema.media import ImageBlock
from ayllu.server.schema.messages import CountRequest, MessageRequest, MessageUsage, Turn
from ayllu.server.schema.tool_grammar import Mode, Tool
from ayllu.server.schema.tools import AnthropicChoice, Block, TextBlock, ToolResultBlock, ToolUseBlock
from ayllu.server.served import Served
from ayllu.server.sse import EVENTS, Json, event
from ayllu.server.tools import History, ToolUse, arguments_of, checked_arguments, planned
from ayllu.server.writing import Written

router = APIRouter(tags=["Anthropic"])
PATH = "/v1/messages"
MODES: dict[str, Mode] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
DEFAULTS = {"temperature": 1.0}                          # of the published document


@router.post(PATH, responses={200: {"model": schema.Message, **EVENTS}}, response_model=None)
async def messages(body: MessageRequest, request: Request) -> Response:
    """The assistant's next message, whole or as server-sent events."""
    served = served_of(request)
    name, redactor = served.check_model(body.model), redactor_for(served)
    form, calls = await prepared(lambda: planned(served, _use(body), _form(body)))
    prompt = await prepared(lambda: _prompt(served, body, redactor), shows=_shows(body))
    params = served.params(DEFAULTS, {
        "temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_tokens,
        "top_k": None if body.top_k is None else max(0, body.top_k), "stop": tuple(body.stop_sequences or ())})
    run = await begin(served, Ask(model=name, prompts=[prompt], params=params, principal=who(request),
                                  redactor=redactor, form=form, calls=calls, at_most=True), request.scope)
    id = new_id("msg_")
    if body.stream:
        return streamed(run, _events(run, id, name), lambda fault: event(body_of(PATH, fault), "error"))
    return await whole(run, request, lambda answers: _whole(run, id, name, answers[0]))


@router.post(PATH + "/count_tokens", responses={200: {"model": schema.TokenCount}}, response_model=None)
async def count_tokens(body: CountRequest, request: Request) -> Response:
    """How many tokens the same prompt has; nothing is generated."""
    served = served_of(request)
    served.check_model(body.model)
    prompt = await prepared(lambda: _prompt(served, body, redactor_for(served)), shows=_shows(body))
    return Json(schema.TokenCount(input_tokens=len(prompt.ids)).model_dump())


def _form(body: MessageRequest) -> Form | None:
    config = body.output_config
    return form_of(json_form(config.format.schema_), "output_config.format") if config and config.format else None


def _use(body: CountRequest) -> ToolUse:
    tools = tuple(Tool(tool.name, tool.description, tool.input_schema) for tool in body.tools or ())
    choice = body.tool_choice or AnthropicChoice(type="auto")
    return ToolUse(tools, MODES[choice.type], None if choice.name is None else (choice.name,),
                   not choice.disable_parallel_tool_use, "tools.{}.input_schema")


def _prompt(served: Served, body: CountRequest, redactor: Redactor) -> Prompt:
    use = _use(body)
    use.check(served.limits.tools)
    history = History()
    if body.system:
        history.say("system", body.system)
    for n, turn in enumerate(body.messages):
        _tell(history, turn, f"messages.{n}.content.{{}}")
    turns = history.turns
    return chat_prompt(turns, served, redactor, tools=use.tools, goes_on=turns[-1]["role"] == "assistant")


def _tell(history: History, turn: Turn, where: str) -> None:
    """Results of tools come first, as turns of their own; then the turn's text, with its calls."""
    calls = []
    for n, block in enumerate(turn.content):
        if isinstance(block, ToolResultBlock):
            said = f"Error: {block.content or ''}" if block.is_error else block.content
            history.result(said, block.tool_use_id, where.format(n) + ".tool_use_id")
        elif isinstance(block, ToolUseBlock):
            if turn.role != "assistant":
                raise FieldError(where.format(n), f"{where.format(n)}: only the assistant calls tools")
            calls.append((block.id, block.name, checked_arguments(block.input, where.format(n) + ".input")))
    texts = [block.text for block in turn.content if isinstance(block, TextBlock)]
    if images := [n for n, block in enumerate(turn.content) if isinstance(block, ImageBlock)]:
        if turn.role != "user":
            raise FieldError(where.format(images[0]), f"{where.format(images[0])}: only the user shows images")
        history.say("user", [part for n, block in enumerate(turn.content) for part in _parts(block, where.format(n))])
    elif calls:
        history.call("".join(texts), calls)
    elif texts or not turn.content:
        history.say(turn.role, "".join(texts))


def _parts(block: Block, where: str) -> list[dict[str, Any]]:
    """A block in OpenAI's form."""
    if isinstance(block, ImageBlock):
        return [{**block.as_part(), "where": where}]
    return [{"type": "text", "text": block.text}] if isinstance(block, TextBlock) else []


def _shows(body: CountRequest) -> bool:
    return any(isinstance(block, ImageBlock) for turn in body.messages for block in turn.content)


def _whole(run: Run, id: str, name: str, answer: Written) -> dict[str, Any]:
    content: list[Any] = [schema.TextBlock(text=answer.text)] if answer.text or not answer.calls else []
    content += [schema.ToolUse(id=new_id("toolu_"), name=call.name, input=arguments_of(call)) for call in answer.calls]
    reason, stop = _reason(run, answer)
    return schema.Message(id=id, model=name, content=content, stop_reason=reason,  # type: ignore[arg-type]
                          stop_sequence=stop, usage=_usage(run)).model_dump()


def _usage(run: Run) -> MessageUsage:
    """What was read from the cache is not counted among the input."""
    return MessageUsage(input_tokens=run.prompt_tokens - run.cached_tokens, cache_read_input_tokens=run.cached_tokens,
                        output_tokens=run.completion_tokens)


def _reason(run: Run, answer: Written) -> tuple[str, str | None]:
    """Anthropic's word for why it ended; a stop string of ours (a transcript's next turn) is an end of turn."""
    if answer.stop is not None and answer.stop in run.ask.params.stop:
        return "stop_sequence", answer.stop
    return {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}[finish_of(answer)], None


class _Blocks:
    """The blocks of a stream: one at a time is open."""

    def __init__(self) -> None:
        self.index = -1
        self.is_open = False

    def begin(self, block: schema.TextBlock | schema.ToolUse) -> bytes:
        """End the one before, begin this one."""
        before = self.end()
        self.index, self.is_open = self.index + 1, True
        return before + event({"type": "content_block_start", "index": self.index,
                               "content_block": block.model_dump()}, "content_block_start")

    def add(self, **delta: Any) -> bytes:
        """More of the open one."""
        return event({"type": "content_block_delta", "index": self.index, "delta": delta}, "content_block_delta")

    def end(self) -> bytes:
        """End the open one, if there is any."""
        was_open, self.is_open = self.is_open, False
        return event({"type": "content_block_stop", "index": self.index}, "content_block_stop") if was_open else b""


async def _events(run: Run, id: str, name: str) -> AsyncGenerator[bytes, None]:
    """The message's start waits for the first token, since it tells what was found in the cache."""
    blocks, answer = _Blocks(), Written()
    async with aclosing(run.events()) as events:
        async for e in events:
            if not answer.ids:
                usage = _usage(run).model_copy(update={"output_tokens": 1})
                start = schema.Message(id=id, model=name, content=[], stop_reason=None, usage=usage)
                yield event({"type": "message_start", "message": start.model_dump()}, "message_start")
                if run.ask.calls is None:                # else it may have no text at all
                    yield blocks.begin(schema.TextBlock(text=""))
                yield event({"type": "ping"}, "ping")
            answer.add(e.piece)
            if e.piece.text:
                if not blocks.is_open:
                    yield blocks.begin(schema.TextBlock(text=""))
                yield blocks.add(type="text_delta", text=e.piece.text)
            for part in e.piece.calls:
                if part.name is not None:
                    yield blocks.begin(schema.ToolUse(id=new_id("toolu_"), name=part.name, input={}))
                else:
                    yield blocks.add(type="input_json_delta", partial_json=part.arguments)
    yield blocks.end()
    reason, stop = _reason(run, answer)
    yield event({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": stop},
                 "usage": _usage(run).model_dump()}, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")
