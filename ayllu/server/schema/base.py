"""What all bodies share: strict about keys, and fields that are known but can't be honoured say so by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema


class Body(BaseModel):
    """A body that is read. An unknown key is an error: a misspelt parameter must not be passed over in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Answer(BaseModel):
    """A body that is written."""

    model_config = ConfigDict(protected_namespaces=())


@dataclass(frozen=True)
class Refuse:
    """A field of the published API that can't be honoured: None and the values in `but` ask for nothing."""

    why: str
    but: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Any value is read, so that the refusal can be ours."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The document promises only what is taken."""
        return {"enum": [None, *self.but], "description": f"Not supported: {self.why}"}

    def _check(self, value: Any) -> None:
        if value is not None and not any(value == ok and isinstance(value, bool) == isinstance(ok, bool)
                                         for ok in self.but):
            raise ValueError(self.why)


def joined_text(*kinds: str) -> Callable[[Any], Any]:
    """A validator for contents: a text, or a list of text parts of these types, which becomes one text."""
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        texts = []
        for number, part in enumerate(value):
            if isinstance(part, str):
                texts.append(part)
                continue
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind not in kinds or not isinstance(part.get("text"), str):
                raise ValueError(f"part {number} has the type {str(kind)[:40]!r}: this model reads text only "
                                 f"({', '.join(kinds)})")
            texts.append(part["text"])
        return "".join(texts)
    return check


def _text_schema(*kinds: str, or_null: bool = True) -> dict[str, Any]:
    part = {"type": "object", "properties": {"type": {"enum": list(kinds)}, "text": {"type": "string"}},
            "required": ["type", "text"]}
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": part}, *([{"type": "null"}] * or_null)]}


TextParts = Annotated[str | None, BeforeValidator(joined_text("text")), WithJsonSchema(_text_schema("text"))]
InputTextParts = Annotated[str | None, BeforeValidator(joined_text("input_text", "output_text", "text")),
                           WithJsonSchema(_text_schema("input_text", "output_text", "text"))]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str] | None, BeforeValidator(_listed),
                  WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}},
                                            {"type": "null"}]})]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = list[Id]
Prompts = str | list[str] | Ids | list[Ids]              # as in OpenAI's completions and embeddings
