"""The tools of one call, whatever its API: checked, put into a grammar, and read out of the answer."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ayllu.server.asking import Form
from ayllu.server.faults import FieldError
from ayllu.server.prompts import form_for
from ayllu.server.schema.forms import json_form
from ayllu.server.schema.media import Content
from ayllu.server.schema.tool_grammar import Mode, Tool, tool_grammar
from ayllu.server.schema.tools import (
    AllowedChoice,
    AllowedResponseTools,
    ChatToolChoice,
    FunctionTool,
    NamedResponseTool,
    NamedTool,
    ResponseToolChoice,
)
from ayllu.server.served import Served
from ayllu.server.writing import Call, Calls

DEEPEST = 64                                             # lists and objects within each other, in what callers send
_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class ToolUse:
    """What a call says of tools. `parameters` names the field of the n-th tool's schema in errors."""

    tools: tuple[Tool, ...] = ()
    mode: Mode = "auto"
    names: tuple[str, ...] | None = None                 # only these may be called; None: all
    several: bool = True
    parameters: str = "tools.{}.function.parameters"

    def check(self, most: int) -> None:
        """Refuse what can't be honoured, by the field's name."""
        if not self.tools:
            if self.mode == "required" or self.names:
                raise FieldError("tool_choice", "tool_choice asks for a call, but tools is empty: give the tools")
            return
        if len(self.tools) > most:
            raise FieldError("tools", f"{len(self.tools)} tools, at most {most} are taken")
        names = [tool.name for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise FieldError("tools", f"tools has two functions named {twice!r}: names must differ")
        unknown = next((name for name in self.names or () if name not in names), None)
        if unknown is not None:
            raise FieldError("tool_choice", f"tool_choice names {unknown[:100]!r}, but the tools are "
                             f"{', '.join(names)[:500]}")
        for n, tool in enumerate(self.tools):
            self._check_schema(self.parameters.format(n), tool.parameters)

    def _check_schema(self, param: str, schema: dict[str, Any] | None) -> None:
        if schema is not None and schema.get("type", "object") != "object":
            raise FieldError(param, f"{param} has the type {str(schema['type'])[:40]!r}: arguments are an object")
        if not is_shallow(schema):
            raise FieldError(param, f"{param} is nested more than {DEEPEST} deep: make it flatter")


def planned(served: Served, use: ToolUse, form: Form | None) -> tuple[Form | None, Calls | None]:
    """The form of the answer with tools, and how its calls are read. `form` is what a text must have besides."""
    use.check(served.limits.tools)
    if not use.tools or (use.mode == "none" and form is not None):
        return form, None
    call_form, text = form_for(served), None
    if form is not None and use.mode == "auto":
        if form.grammar.kind != "json_schema" or not call_form.trigger:
            raise FieldError(form.param, f"{form.param} can't be joined with tools here: only a JSON schema can, and "
                             "only where the model's calls begin with a mark; set tool_choice to none or required, or "
                             "leave one out")
        text = json.loads(form.grammar.text)
    may = [tool for tool in use.tools if use.names is None or tool.name in use.names]
    grammar = tool_grammar(call_form, may, use.mode, several=use.several, text=text)
    parts = tuple((use.parameters.format(n), json_form(tool.held)) for n, tool in enumerate(use.tools) if tool in may)
    calls = None if use.mode == "none" else Calls(call_form, is_forced=use.mode == "required")
    return Form(grammar, "tools", parts), calls


class History:
    """The turns of a chat as chat templates take them, with calls of tools and their results."""

    def __init__(self) -> None:
        self.turns: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}                 # of the calls so far, by id
        self._done: set[str] = set()                     # ids that have a result

    def say(self, role: str, content: Content | None, **more: Any) -> None:
        """A text of anybody, or parts of a user."""
        self.turns.append({"role": role, "content": content or "", **more})

    def call(self, content: str | None, calls: Sequence[tuple[str, str, dict[str, Any]]], *,
             joins: bool = False) -> None:
        """The assistant calls tools: (id, name, arguments). `joins`: in the same turn as what it said just before."""
        if not (joins and self.turns and self.turns[-1]["role"] == "assistant"):
            self.say("assistant", content)
        self.turns[-1].setdefault("tool_calls", []).extend(
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in calls)
        self._names |= {id: name for id, name, _ in calls}
        self._done -= {id for id, *_ in calls}

    def result(self, content: str | None, id: str, param: str) -> None:
        """A tool's result; its id must be that of a call which came before and has no result yet."""
        if id not in self._names or id in self._done:
            raise FieldError(param, f"{param} is {id[:100]!r}, but " + (
                "that call has its result already" if id in self._done else
                f"the calls before it are {', '.join(list(self._names)[-5:]) or 'none'}"))
        self._done.add(id)
        self.say("tool", content, tool_call_id=id, name=self._names[id])

    def open_call(self, name: str | None) -> str | None:
        """The id of the first call (of this name) without a result, for APIs whose results carry no id."""
        return next((id for id, known in self._names.items() if id not in self._done and name in (None, known)), None)


def function_tools(tools: Sequence[FunctionTool] | None) -> tuple[Tool, ...]:
    """From the form of OpenAI's chats and of Ollama."""
    return tuple(Tool(tool.function.name, tool.function.description, tool.function.parameters) for tool in tools or ())


def choice_of(choice: ChatToolChoice | ResponseToolChoice | None) -> tuple[Mode, tuple[str, ...] | None]:
    """OpenAI's tool_choice: what is asked for, and which tools may be called if not all."""
    match choice:
        case None:
            return "auto", None
        case NamedTool():
            return "required", (choice.function.name,)
        case AllowedChoice():
            return choice.allowed_tools.mode, tuple(tool.function.name for tool in choice.allowed_tools.tools)
        case NamedResponseTool():
            return "required", (choice.name,)
        case AllowedResponseTools():
            return choice.mode, tuple(tool.name for tool in choice.tools)
    return choice, None


def arguments_in(text: str, param: str) -> dict[str, Any]:
    """Arguments that a client sends back as a text."""
    try:
        found = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise FieldError(param, f"{param} is not valid JSON: send back what the answer held") from None
    return checked_arguments(found, param)


def checked_arguments(value: Any, param: str) -> dict[str, Any]:
    """Arguments that a client sends back as an object."""
    if not isinstance(value, dict):
        raise FieldError(param, f"{param} is no JSON object")
    if not is_shallow(value):
        raise FieldError(param, f"{param} is nested more than {DEEPEST} deep")
    return value


def arguments_of(call: Call) -> dict[str, Any]:
    """A call's arguments as an object; empty where they were cut. Numbers past the range of a float are its largest,
    since JSON here has no infinity."""
    return json.loads(call.arguments, parse_float=_number, parse_int=_integer) if call.is_whole else {}


def _number(text: str) -> float:
    return max(-_LARGEST, min(_LARGEST, float(text)))


def _integer(text: str) -> float:
    return int(text) if len(text) < 4000 else _number(text)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def is_shallow(value: Any) -> bool:
    """Whether lists and objects lie at most DEEPEST deep within each other."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for v in level if isinstance(v, dict | list) for inner in (v.values() if isinstance(v, dict)
                                                                                  else v)]
        if not level:
            return True
    return False

