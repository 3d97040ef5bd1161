"""The grammar of an answer that may or must call tools: Lark with a JSON schema for the arguments of each tool.

A text is free until a call begins; from there on the model's own form (text/call_form.py), the names of the tools and
their schemas are all that may come, and after the last call only the end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ayllu.engine.request import Grammar
from ayllu.text.call_form import MARK, CallForm

Schema = dict[str, Any]
Mode = Literal["none", "auto", "required"]
# Spaces as models write them, never a blank line without end; no \u escapes, which may spell half a character or,
# as the key of a further property, the name of a declared one.
_WRITING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?",
            "json_allowed_escapes": 'nrbtf\\"'}
_NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$comment",
          "$id", "strict"}                               # of a schema, what says nothing of a value's form
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
_ONE = {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties"}
_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems", "items"}
_TABLES = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_OPENS = {"additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", *_LISTS - {"items"}, "if"}


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` None: it takes none."""

    name: str
    description: str | None = None
    parameters: Schema | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As chat templates take it."""
        about = {"description": self.description} if self.description is not None else {}
        parameters = {"type": "object", "properties": {}} if self.parameters is None else self.parameters
        return {"type": "function", "function": {"name": self.name, **about, "parameters": parameters}}

    @property
    def held(self) -> Schema:
        """The schema of the arguments, as the grammar engine takes it. Properties that nobody declared may come only
        where the schema speaks of them: a function can do nothing with them."""
        if self.parameters is None:
            return {"type": "object", "additionalProperties": False, "x-guidance": _WRITING}
        schema = {"type": "object", **_formal(self.parameters)}
        if "properties" in schema and not _OPENS & set(schema):
            schema["additionalProperties"] = False
        return {**schema, "x-guidance": _WRITING}


def tool_grammar(form: CallForm, tools: Sequence[Tool], mode: Mode, *, several: bool,
                 text: Schema | None = None) -> Grammar:
    """`several`: more than one call may come. `text`: what is no call has this schema."""
    if mode == "none":
        return Grammar("lark", _plain(form))
    again = f"({_lark(form, form.again)} call)*" if several and form.again is not None else ""
    id = '(", \\"id\\": \\"" /[a-zA-Z0-9]{9}/ "\\"")?' if form.has_ids else ""
    rules = ["%llguidance {}", f"call: ({' | '.join(f'call_{n}' for n in range(len(tools)))}) {id}"]
    rules += [f"call_{n}: {_lark(form, tool.name + form.middle)} %json {json.dumps(tool.held)}"
              for n, tool in enumerate(tools)]
    rest = f"call {again} {_lark(form, form.end)}"
    if mode == "required":
        return Grammar("lark", "\n".join([*rules, f"start: {_lark(form, form.begin)} {rest}"]))
    if text is not None:
        rules += [f"start: {_lark(form, form.begin)} {rest} | text", f"text: %json {json.dumps(text)}"]
        return Grammar("lark", "\n".join(rules))
    return Grammar("lark", "\n".join([*rules, *_free(form, rest)]))


def _free(form: CallForm, rest: str) -> list[str]:
    """Text, or calls with a text before them."""
    after = _lark(form, form.begin.removeprefix(form.trigger))
    if not form.trigger:
        prelude = f"({_lark(form, form.prelude)})?" if form.prelude else ""
        return [f"start: {prelude} {after} {rest} | TEXT?", f"TEXT: /{_first(form)}[^{MARK}]*/"]
    if form.trigger in form.marks:                       # a token of its own, which no text can hold
        return [f"start: TEXT? {_lark(form, form.trigger)} {after} {rest} | TEXT?", f"TEXT: /[^{MARK}]*/"]
    return [f"start: begun {after} {rest} | TEXT", f"begun[lazy]: TEXT {json.dumps(form.trigger)}",
            f"TEXT: /[^{MARK}]*/"]


def _plain(form: CallForm) -> str:
    """Text in which no call begins."""
    if not form.trigger:
        return f"start: TEXT?\nTEXT: /{_first(form)}[^{MARK}]*/"
    without = "" if form.trigger in form.marks else f" & ~(/(?s:.*)/ {json.dumps(form.trigger)} /(?s:.*)/)"
    return f"start: TEXT\nTEXT: /[^{MARK}]*/{without}"


def _first(form: CallForm) -> str:
    """What a text may begin with, where calls have no mark."""
    return f"[^{form.begin[0]}{MARK}]"


def _lark(form: CallForm, text: str) -> str:
    """A text of the form, its marks as ids, with a space after them or none: SentencePiece puts one there."""
    return " ".join(f'<[{form.marks[piece]}]> " "?' if piece in form.marks else json.dumps(piece)
                    for piece in form.pieces(text))


def _formal(schema: Any) -> Any:
    """A schema without what says nothing of a value's form: notes, and formats that the grammar engine doesn't know."""
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, value in schema.items():
        if key in _NOTES or (key == "format" and isinstance(value, str) and value not in _FORMATS):
            continue
        if key in _TABLES and isinstance(value, dict):
            found[key] = {name: _formal(inner) for name, inner in value.items()}
        elif key in _LISTS and isinstance(value, list):
            found[key] = [_formal(inner) for inner in value]
        else:
            found[key] = _formal(value) if key in _ONE else value
    return found
