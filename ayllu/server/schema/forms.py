"""The form that an answer must have, as each API writes it, and as the engine takes it."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ayllu.engine.request import Grammar
from ayllu.server.schema.base import Body, Refuse

Schema = dict[str, Any]
ANY_OBJECT: Schema = {"type": "object"}


def json_form(schema: Schema) -> Grammar:
    """JSON of this schema."""
    return Grammar("json_schema", json.dumps(schema))


class NamedSchema(Body):
    """A JSON schema with a name; every one is held to, `strict` or not."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str | None = Field(default=None, max_length=64)
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """OpenAI's response_format."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema: give both, or neither")
        return self

    @property
    def grammar(self) -> Grammar | None:
        """For the engine; None for plain text."""
        if self.json_schema is not None:
            return json_form(self.json_schema.schema_)
        return json_form(ANY_OBJECT) if self.type == "json_object" else None


class TextFormat(Body):
    """The same in /v1/responses: the schema beside the type."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(default=None, max_length=64)
    description: str | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("schema belongs to the type json_schema: give both, or neither")
        return self

    @property
    def grammar(self) -> Grammar | None:
        """For the engine; None for plain text."""
        if self.schema_ is not None:
            return json_form(self.schema_)
        return json_form(ANY_OBJECT) if self.type == "json_object" else None


class StructuredOutputs(Body):
    """vLLM's: one of several kinds of form. A grammar is Lark."""

    json_: Schema | None = Field(default=None, alias="json")
    regex: str | None = Field(default=None, max_length=4096)
    choice: list[str] | None = Field(default=None, min_length=1, max_length=1024)
    grammar: str | None = None
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name, value in self if value not in (None, False)]
        if len(given) != 1:
            raise ValueError(f"give one of json, regex, choice, grammar and json_object; found {given}")
        return self

    @property
    def form(self) -> Grammar:
        """For the engine."""
        if self.regex is not None:
            return Grammar("regex", self.regex)
        if self.choice is not None:
            return Grammar("choice", json.dumps(self.choice))
        if self.grammar is not None:
            return Grammar("lark", self.grammar)
        return json_form(ANY_OBJECT if self.json_ is None else self.json_)


class AnthropicFormat(Body):
    """Anthropic's output_config.format."""

    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(Body):
    """Anthropic's output_config."""

    format: AnthropicFormat | None = None
    effort: Annotated[Any, Refuse("this model does not think apart")] = None
