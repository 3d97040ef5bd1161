"""Ollama's /api/chat and /api/generate. Answers stream unless `stream` is false, as lines of JSON."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.errors import ContextTooLong
from ayllu.model.params import SamplingParams
from ayllu.server.asking import Ask, Form, Run, begin, form_of
from ayllu.server.faults import FieldError, body_of
from ayllu.server.openai import content_logprobs, new_id, prepared, redactor_for, seed_of, served_of, who
from ayllu.server.prompts import Prompt, Redactor, chat_prompt, text_prompt
from ayllu.server.replying import streamed, whole
from ayllu.server.schema.forms import ANY_OBJECT, json_form
from ayllu.server.schema.media import placed, with_images
from ayllu.server.schema.ollama import GenerateRequest, OllamaChatRequest, OllamaRequest, Options, Part
from ayllu.server.served import Served
from ayllu.server.sse import LINES, Json, line
from ayllu.server.tools import History, ToolUse, arguments_of, checked_arguments, function_tools, planned
from ayllu.server.writing import Call, Calls, Piece, Written

router = APIRouter(tags=["Ollama"])
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}    # of Ollama's document
NO_PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def model_name(served: Served, name: str) -> str:
    """Ollama's clients may add a tag to a name: the only one here is "latest"."""
    served.check_model(name if name in served.aliases else name.removesuffix(":latest"))
    return name


def timestamp(seconds: float | None = None) -> str:
    """Now, or a moment, as Ollama writes it."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")


@router.post("/api/chat", responses={200: {"model": Part, **LINES}}, response_model=None)
async def chat(body: OllamaChatRequest, request: Request) -> Response:
    """The assistant's next message."""
    served = served_of(request)
    name, redactor = model_name(served, body.model), redactor_for(served)
    if not body.messages:
        return Json(Part(model=name, created_at=timestamp(), message={"role": "assistant", "content": ""}, done=True,
                         done_reason="load").model_dump(exclude_none=True))
    use = ToolUse(function_tools(body.tools))
    form, calls = await prepared(lambda: planned(served, use, _form(body)))
    prompt = await prepared(lambda: _chat_prompt(served, body, use, redactor),
                            shows=any(message.images for message in body.messages))
    return await _answer(served, body, name, prompt, redactor, request, form, calls)


def _chat_prompt(served: Served, body: OllamaChatRequest, use: ToolUse, redactor: Redactor) -> Prompt:
    """Ollama's results name a tool and not a call: that of the first call of this name which has none yet."""
    history = History()
    for n, message in enumerate(body.messages):
        where = f"messages.{n}"
        if message.role == "tool":
            id = message.tool_call_id or history.open_call(message.tool_name)
            if id is None:
                raise FieldError(f"{where}.tool_name", f"{where}.tool_name is {message.tool_name!r}, but no call of it "
                                 "that has no result stands before")
            history.result(message.content, id, f"{where}.tool_call_id")
        elif message.tool_calls:
            history.call(message.content, [
                (call.id or f"call_{n}_{k}", call.function.name,
                 checked_arguments(call.function.arguments, f"{where}.tool_calls.{k}.function.arguments"))
                for k, call in enumerate(message.tool_calls)])
        else:
            history.say(message.role, placed(with_images(message.content, message.images), f"{where}.images"))
    turns = history.turns
    return chat_prompt(turns, served, redactor, tools=use.tools, goes_on=turns[-1]["role"] == "assistant")


@router.post("/api/generate", responses={200: {"model": Part, **LINES}}, response_model=None)
async def generate(body: GenerateRequest, request: Request) -> Response:
    """The answer to one prompt, or with `raw` its continuation; a model without a template continues it anyway."""
    served = served_of(request)
    name, redactor = model_name(served, body.model), redactor_for(served)
    if not body.prompt:
        return Json(Part(model=name, created_at=timestamp(), response="", done=True,
                         done_reason="load").model_dump(exclude_none=True))
    prompt = await prepared(lambda: _generate_prompt(served, body, redactor), shows=bool(body.images))
    return await _answer(served, body, name, prompt, redactor, request, _form(body))


def _generate_prompt(served: Served, body: GenerateRequest, redactor: Redactor) -> Prompt:
    if (body.raw or (served.chat_template is None and not body.system)) and not body.images:
        return text_prompt(body.prompt, served.tokenizer, redactor)
    if body.raw:
        raise FieldError("images", "images: with raw there is no template that could place them: leave raw out")
    turns: list[dict[str, Any]] = [{"role": "system", "content": body.system}] if body.system else []
    turns.append({"role": "user", "content": placed(with_images(body.prompt, body.images), "images")})
    return chat_prompt(turns, served, redactor)


async def _answer(served: Served, body: OllamaRequest, name: str, prompt: Prompt, redactor: Redactor,
                  request: Request, form: Form | None, calls: Calls | None = None) -> Response:
    options = body.options or Options()
    if options.num_ctx is not None and len(prompt.ids) >= options.num_ctx:
        raise ContextTooLong(f"the prompt has {len(prompt.ids)} tokens and num_ctx={options.num_ctx} allows fewer: "
                             "raise it, or shorten the prompt")
    params = _params(served, options, body)
    if options.num_ctx is not None:
        room = options.num_ctx - len(prompt.ids)
        params = params.model_copy(update={"max_tokens": min(room, params.max_tokens or room)})
    run = await begin(served, Ask(model=name, prompts=[prompt], params=params, principal=who(request),
                                  redactor=redactor, form=form, calls=calls, at_most=True), request.scope)
    reply = _Reply(run, body, name)
    if body.stream is not False:
        return streamed(run, _lines(reply), lambda fault: line(body_of("/api/", fault)), is_sse=False)
    return await whole(run, request, lambda answers: {**reply.part(answers[0], answers[0].calls),
                                                      **reply.end(answers[0].finish)})


def _form(body: OllamaRequest) -> Form | None:
    if not body.format:
        return None
    return form_of(json_form(ANY_OBJECT if body.format == "json" else body.format), "format")


def _params(served: Served, options: Options, body: OllamaRequest) -> SamplingParams:
    n_predict, penalties = options.num_predict, _penalties(served, options)
    return served.params(DEFAULTS, {
        "temperature": options.temperature, "top_p": options.top_p, "min_p": options.min_p,
        "typical_p": options.typical_p, "top_k": None if options.top_k is None else max(0, options.top_k),
        **penalties, "seed": seed_of(options.seed),
        "stop": tuple(options.stop or ()), "max_tokens": n_predict if n_predict and n_predict > 0 else None,
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None})


def _penalties(served: Served, options: Options) -> dict[str, float | None]:
    """Over all ids of the text; Ollama looks at the last `repeat_last_n`, which makes a difference where there are
    penalties and the context is longer."""
    given = {"repetition_penalty": options.repeat_penalty, "presence_penalty": options.presence_penalty,
             "frequency_penalty": options.frequency_penalty}
    n = options.repeat_last_n
    if n == 0:
        return {**NO_PENALTIES}
    used = {**NO_PENALTIES, **served.defaults, **{key: value for key, value in given.items() if value is not None}}
    if n is not None and 0 < n < served.context and any(used[key] != none for key, none in NO_PENALTIES.items()):
        raise FieldError("options.repeat_last_n", f"options.repeat_last_n={n} with a penalty: here penalties look at "
                         "the whole text; leave it out, or take -1, or no penalty")
    return given


class _Reply:
    """How one answer is written down, line by line or at once."""

    def __init__(self, run: Run, body: OllamaRequest, name: str) -> None:
        self.run, self.body, self.name = run, body, name

    def part(self, piece: Piece | Written, calls: Sequence[Call] = ()) -> dict[str, Any]:
        """A piece of text, with calls that are whole: Ollama has no way to show others."""
        is_chat = isinstance(self.body, OllamaChatRequest)
        logprobs = content_logprobs(self.run.served.tokenizer, piece.entries) if self.body.logprobs else None
        message: dict[str, Any] = {"role": "assistant", "content": piece.text}
        made = [{"id": new_id("call_"), "function": {"index": n, "name": call.name, "arguments": arguments_of(call)}}
                for n, call in enumerate(calls) if call.is_whole]
        return Part(model=self.name, created_at=timestamp(), done=False, logprobs=logprobs,
                    message={**message, **({"tool_calls": made} if made else {})} if is_chat else None,
                    response=None if is_chat else piece.text).model_dump(exclude_none=True)

    def end(self, finish: str | None) -> dict[str, Any]:
        """Why it ended, counts and nanoseconds."""
        total = time.perf_counter() - self.run.begun
        first = self.run.first_s or total
        return {"done": True, "done_reason": "stop" if finish == "stop" else "length",
                "total_duration": int(total * 1e9), "load_duration": 0,
                "prompt_eval_count": self.run.prompt_tokens, "prompt_eval_duration": int(first * 1e9),
                "eval_count": self.run.completion_tokens, "eval_duration": int((total - first) * 1e9)}


async def _lines(reply: _Reply) -> AsyncGenerator[bytes, None]:
    """Text as it comes; calls in one line when all are made."""
    answer = Written()
    async with aclosing(reply.run.events()) as events:
        async for e in events:
            answer.add(e.piece)
            if e.piece.text or (reply.body.logprobs and e.piece.entries):
                yield line(reply.part(e.piece))
            if e.piece.finish is not None:
                if any(call.is_whole for call in answer.calls):
                    yield line(reply.part(Piece(), answer.calls))
                yield line({**reply.part(Piece()), **reply.end(e.piece.finish)})
