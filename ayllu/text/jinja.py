"""Run a checkpoint's chat template (Jinja source that somebody else wrote) in a sandbox.

It sees what transformers shows it: `raise_exception`, `strftime_now`, `tojson`, loop controls and the tag
`{% generation %}`, which says what an assistant wrote.
"""

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ayllu.errors import CheckpointError, RequestError

MOST_CHARS = 1 << 24                                     # a template that writes more has run wild


class Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: its text, between the marks that the caller asked for (if any)."""

    tags = {"generation"}                                # noqa: RUF012 (Jinja's own declaration is not a ClassVar)

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the tag into a call, so that its body renders first."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, context: Context, caller: Callable[[], str]) -> str:
        before, after = context.get("generation_marks") or ("", "")
        return f"{before}{caller()}{after}"


class _MessagesError(TemplateError):
    """What a template says by raise_exception: the messages don't fit it."""


def run(source: str, variables: dict[str, Any], now: datetime | None = None) -> str:
    """The text that a template makes of its variables."""
    clock = {"strftime_now": lambda form: (now or datetime.now()).strftime(form)}
    parts: list[str] = []
    size = 0
    try:
        for part in _compile(source).generate(**variables, **clock):
            parts.append(part)
            size += len(part)
            if size > MOST_CHARS:
                raise CheckpointError(f"the chat template wrote over {MOST_CHARS} characters: it is broken")
    except _MessagesError as error:
        raise RequestError(f"the chat template refuses these messages: {error}") from error
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise RequestError(f"the chat template can't use these messages ({type(error).__name__}: {error}); "
                           "check roles and contents, or choose another template") from error
    return "".join(parts)


@lru_cache(maxsize=32)
def _compile(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise CheckpointError(f"the chat template is no valid Jinja ({error}): choose another template, "
                              "for example llama2, llama3 or chatml") from error


def _raise(message: str) -> None:
    raise _MessagesError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """JSON without HTML escapes, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
