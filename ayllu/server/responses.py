"""OpenAI's /v1/responses: one message out, nothing remembered."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.server import openai
from ayllu.server.asking import Ask, Form, Run, begin, form_of
from ayllu.server.media import shows
from ayllu.server.prompts import Prompt, Redactor, chat_prompt
from ayllu.server.replying import streamed, whole
from ayllu.server.schema import responses as schema
from ayllu.server.schema.base import Body
from ayllu.server.schema.media import placed
from ayllu.server.schema.responses import InputItem, ResponseRequest
from ayllu.server.schema.tool_grammar import Tool
from ayllu.server.schema.tools import FunctionCallItem, FunctionOutputItem
from ayllu.server.served import Served
from ayllu.server.sse import EVENTS, event
from ayllu.server.tools import History, ToolUse, arguments_in, choice_of, planned
from ayllu.server.writing import Call, Piece, Written
from ayllu.text.call_reader import CallPiece

router = APIRouter(tags=["OpenAI"])
PATH = "/v1/responses"
LOGPROBS = "message.output_text.logprobs"


@router.post(PATH, responses={200: {"model": schema.Response, **EVENTS}}, response_model=None)
async def responses(body: ResponseRequest, request: Request) -> Response:
    """Answer an input, whole or as server-sent events."""
    served = openai.served_of(request)
    name, redactor = served.check_model(body.model), openai.redactor_for(served)
    use = _use(body)
    form, calls = await openai.prepared(lambda: planned(served, use, _form(body)))
    shown = shows([item.content for item in body.input if isinstance(item, InputItem)])
    prompt = await openai.prepared(lambda: _prompt(served, body, use, redactor), shows=shown)
    wants_logprobs = LOGPROBS in (body.include or []) or bool(body.top_logprobs)
    params = served.params(openai.DEFAULTS, {
        "temperature": body.temperature, "top_p": body.top_p, "min_p": body.min_p, "seed": openai.seed_of(body.seed),
        "top_k": None if body.top_k is None else max(0, body.top_k), "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty,
        "stop": tuple(body.stop or ()), "max_tokens": body.max_output_tokens,
        "logprobs": (body.top_logprobs or 0) if wants_logprobs else None})
    run = await begin(served, Ask(model=name, prompts=[prompt], params=params, principal=openai.who(request),
                                  redactor=redactor, form=form, calls=calls), request.scope)
    reply = _Reply(run, body, name)
    if body.stream:
        return streamed(run, _events(reply), reply.failed)
    return await whole(run, request, lambda answers: reply.whole(answers[0]))


def _form(body: ResponseRequest) -> Form | None:
    return form_of(body.text.format.grammar, "text.format") if body.text and body.text.format else None


def _use(body: ResponseRequest) -> ToolUse:
    mode, names = choice_of(body.tool_choice)
    tools = tuple(Tool(tool.name, tool.description, tool.parameters) for tool in body.tools or ())
    return ToolUse(tools, mode, names, body.parallel_tool_calls is not False, "tools.{}.parameters")


def _prompt(served: Served, body: ResponseRequest, use: ToolUse, redactor: Redactor) -> Prompt:
    history = History()
    if body.instructions:
        history.say("system", body.instructions)
    for n, item in enumerate(body.input):
        if isinstance(item, FunctionCallItem):
            arguments = arguments_in(item.arguments, f"input.{n}.arguments")
            history.call(None, [(item.call_id, item.name, arguments)], joins=True)
        elif isinstance(item, FunctionOutputItem):
            history.result(item.output, item.call_id, f"input.{n}.call_id")
        else:
            history.say(item.role, placed(item.content, f"input.{n}.content"))
    return chat_prompt(history.turns, served, redactor, tools=use.tools)


class _Reply:
    """The response object at any moment, and the events about it with their running number."""

    def __init__(self, run: Run, body: ResponseRequest, name: str) -> None:
        self.run, self.body, self.name = run, body, name
        self.id, self.item_id, self.created = openai.new_id("resp_"), openai.new_id("msg_"), openai.now()
        self.written = Written()
        self.logprobs: list[dict[str, Any]] = []
        self._call_ids: list[tuple[str, str]] = []       # of each call: the item's id, the call's id
        self._n_events = 0

    def whole(self, answer: Written) -> dict[str, Any]:
        """The finished response."""
        self.take(answer)
        return self.response()

    def take(self, answer: Written) -> None:
        """What was written; with log-probabilities of the text if they were asked for."""
        self.written = answer
        if self.run.ask.params.logprobs is not None:
            entries = [e for e in answer.entries if not answer.calls or e.offset < len(answer.text)]
            self.logprobs = openai.content_logprobs(self.run.served.tokenizer, entries)

    @property
    def status(self) -> str:
        """Of the response."""
        if self.written.finish is None:
            return "in_progress"
        return "incomplete" if openai.finish_of(self.written) == "length" else "completed"

    @property
    def has_message(self) -> bool:
        """Whether there is a text among the items: the first one."""
        return bool(self.written.text) or not self.written.calls

    def part(self) -> schema.OutputText:
        """The text so far."""
        return schema.OutputText(text=self.written.text, logprobs=self.logprobs)

    def message(self, *, is_empty: bool = False) -> schema.OutputMessage:
        """The message so far; once a call follows, it is complete."""
        status = "in_progress" if is_empty else "completed" if self.written.calls else self.status
        return schema.OutputMessage(id=self.item_id, status=status,            # type: ignore[arg-type]
                                    content=[] if is_empty else [self.part()])

    def call(self, index: int, call: Call, status: str | None = None) -> schema.OutputCall:
        """One of the calls."""
        while len(self._call_ids) <= index:
            self._call_ids.append((openai.new_id("fc_"), openai.new_id("call_")))
        id, call_id = self._call_ids[index]
        return schema.OutputCall(id=id, call_id=call_id, name=call.name, arguments=call.arguments,
                                 status=status or ("completed" if call.is_whole   # type: ignore[arg-type]
                                                   else "incomplete"))

    def items(self) -> list[Any]:
        """All items of the finished answer."""
        calls = [self.call(n, call) for n, call in enumerate(self.written.calls)]
        return [*([self.message()] if self.has_message else []), *calls]

    def response(self, error: dict[str, str] | None = None) -> dict[str, Any]:
        """The response so far."""
        params, is_open = self.run.ask.params, self.written.finish is None
        n_in, n_out = self.run.prompt_tokens, self.run.completion_tokens
        usage = schema.ResponseUsage(
            input_tokens=n_in, output_tokens=n_out, total_tokens=n_in + n_out,
            input_tokens_details=schema.InputDetails(cached_tokens=self.run.cached_tokens))
        return schema.Response(
            id=self.id, created_at=self.created, completed_at=None if is_open else openai.now(),
            status="failed" if error else self.status,                         # type: ignore[arg-type]
            error=error, incomplete_details=schema.Incomplete() if self.status == "incomplete" else None,
            instructions=self.body.instructions, max_output_tokens=self.body.max_output_tokens,
            metadata=self.body.metadata or {}, model=self.name,
            output=[] if is_open else self.items(), parallel_tool_calls=self.body.parallel_tool_calls is not False,
            tool_choice=_echo(self.body.tool_choice) or "auto", tools=[_echo(tool) for tool in self.body.tools or ()],
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


def _echo(value: Any) -> Any:
    """What was asked for, as it was."""
    return value.model_dump() if isinstance(value, Body) else value


class _Stream:
    """The items of a stream, one open at a time: first a text, if there is any, then calls."""

    def __init__(self, reply: _Reply) -> None:
        self.reply = reply
        self.has_message = self.is_open = False
        self.place = {"output_index": 0, "item_id": reply.item_id, "content_index": 0}

    def begin_message(self) -> Iterator[bytes]:
        """The text's item, before its text."""
        self.has_message = self.is_open = True
        yield self.reply.tell("response.output_item.added", output_index=0,
                              item=self.reply.message(is_empty=True).model_dump())
        yield self.reply.tell("response.content_part.added", **self.place, part=self.reply.part().model_dump())

    def end_message(self) -> Iterator[bytes]:
        """The whole text."""
        if not self.is_open:
            return
        self.is_open = False
        part = self.reply.part()
        yield self.reply.tell("response.output_text.done", **self.place, text=part.text, logprobs=part.logprobs)
        yield self.reply.tell("response.content_part.done", **self.place, part=part.model_dump())
        yield self.reply.tell("response.output_item.done", output_index=0, item=self.reply.message().model_dump())

    def call(self, part: CallPiece, call: Call) -> Iterator[bytes]:
        """A piece of a call, which is so far `call`."""
        place, item = self.of(part.index, call)
        if part.name is not None:
            item = item.model_copy(update={"status": "in_progress", "arguments": ""})
            yield self.reply.tell("response.output_item.added", output_index=place["output_index"],
                                  item=item.model_dump())
        else:
            yield self.reply.tell("response.function_call_arguments.delta", **place, delta=part.arguments)
        if part.is_whole:
            yield from self.end_call(part.index, call)

    def end_call(self, index: int, call: Call) -> Iterator[bytes]:
        """A whole call, or what there is of it."""
        place, item = self.of(index, call)
        yield self.reply.tell("response.function_call_arguments.done", **place, name=call.name,
                              arguments=call.arguments)
        yield self.reply.tell("response.output_item.done", output_index=place["output_index"], item=item.model_dump())

    def of(self, index: int, call: Call) -> tuple[dict[str, Any], schema.OutputCall]:
        """Where a call's item stands, and the item."""
        item = self.reply.call(index, call)
        return {"output_index": index + self.has_message, "item_id": item.id}, item


async def _events(reply: _Reply) -> AsyncGenerator[bytes, None]:
    yield reply.tell("response.created", response=reply.response())
    yield reply.tell("response.in_progress", response=reply.response())
    stream, answer, ask = _Stream(reply), Written(), reply.run.ask
    if ask.calls is None:
        for part in stream.begin_message():
            yield part
    async with aclosing(reply.run.events()) as events:
        async for e in events:
            answer.add(e.piece._replace(calls=(), finish=None))
            has_logprobs = ask.params.logprobs is not None and (ask.calls is None or e.piece.text)
            logprobs = openai.content_logprobs(reply.run.served.tokenizer, e.piece.entries) if has_logprobs else []
            if e.piece.text or logprobs:
                for part in () if stream.has_message else stream.begin_message():
                    yield part
                yield reply.tell("response.output_text.delta", **stream.place, delta=e.piece.text, logprobs=logprobs)
            for piece in e.piece.calls:
                answer.add(Piece(calls=(piece,)))
                reply.take(answer)
                for part in (*stream.end_message(), *stream.call(piece, answer.calls[-1])):
                    yield part
            answer.finish = e.piece.finish
    reply.take(answer)
    if reply.has_message and not stream.has_message:     # an answer of nothing
        for part in stream.begin_message():
            yield part
    for part in stream.end_message():
        yield part
    if answer.calls and not answer.calls[-1].is_whole:
        for part in stream.end_call(len(answer.calls) - 1, answer.calls[-1]):
            yield part
    yield reply.tell(f"response.{reply.status}", response=reply.response())
