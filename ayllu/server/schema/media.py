"""Contents that may hold images and sounds, whatever the API: they become parts in OpenAI's form (engine/parts.py).

A content of texts alone becomes one text. What a part asks for beyond the image or sound itself is `detail`, a hint:
an eye has its own resolution.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from ayllu.server.schema.base import Body

Detail = Literal["auto", "low", "high", "original"]
DATA = {"type": "string", "description": "the file's bytes in base64"}


class ImageUrl(Body):
    """A data: URL, or an address on a machine that --media-hosts names."""

    url: str
    detail: Detail | None = None


class ImagePart(Body):
    """An image in a chat."""

    type: Literal["image_url"]
    image_url: ImageUrl

    def as_part(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"type": "image_url", "image_url": {"url": self.image_url.url}}


class Audio(Body):
    """The bytes of a sound file; what it is, the file itself says."""

    data: str
    format: str = Field(default="wav", max_length=16)


class WrittenOrSpoken(Body):
    """A body with `audio` in the place of its text or question."""

    audio: Audio | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        name = next(name for name in ("text", "question") if name in type(self).model_fields)
        if bool(getattr(self, name)) == (self.audio is not None):
            raise ValueError(f"give {name} or audio; found {'both' if self.audio else 'neither'}")
        return self


class AudioPart(Body):
    """A sound in a chat or a response."""

    type: Literal["input_audio"]
    input_audio: Audio

    def as_part(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"type": "input_audio", "input_audio": self.input_audio.model_dump()}


class InputImage(Body):
    """An image in the input of /v1/responses."""

    type: Literal["input_image"]
    image_url: str
    detail: Detail | None = None

    def as_part(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"type": "image_url", "image_url": {"url": self.image_url}}


class Source(Body):
    """Where Anthropic's image is: its bytes, or an address."""

    type: Literal["base64", "url"]
    media_type: str | None = Field(default=None, max_length=64)
    data: str | None = None
    url: str | None = None


class ImageBlock(Body):
    """An image among Anthropic's blocks."""

    type: Literal["image"]
    source: Source
    cache_control: dict[str, Any] | None = None

    def as_part(self) -> dict[str, Any]:
        """In OpenAI's form."""
        source = self.source
        data = f"data:{source.media_type or 'image/*'};base64,{source.data or ''}"
        return {"type": "image_url", "image_url": {"url": (source.url or "") if source.type == "url" else data}}


FORMS: dict[str, type[ImagePart | AudioPart | InputImage]] = {
    "image_url": ImagePart, "input_audio": AudioPart, "input_image": InputImage}


def _parts(texts: tuple[str, ...], media: tuple[str, ...]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        found = [_part(part, number, texts, media) for number, part in enumerate(value)]
        is_text = all(part["type"] == "text" for part in found)
        return "".join(part["text"] for part in found) if is_text else found
    return BeforeValidator(check)


def _part(part: Any, number: int, texts: tuple[str, ...], media: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind in texts and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind not in media:
        raise ValueError(f"part {number} has the type {str(kind)[:40]!r}: use {', '.join((*texts, *media))}")
    try:
        return FORMS[str(kind)].model_validate(part).as_part()
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"part {number}, {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _schema(texts: tuple[str, ...], media: tuple[str, ...], or_null: bool = True) -> WithJsonSchema:
    text = {"type": "object", "properties": {"type": {"enum": list(texts)}, "text": {"type": "string"}},
            "required": ["type", "text"]}
    url = {"type": "string", "description": "data:image/png;base64,..."}
    image = {"type": "object", "properties": {"url": url, "detail": {"enum": ["auto", "low", "high"]}},
             "required": ["url"]}
    forms: dict[str, Any] = {
        "image_url": image, "input_image": url,
        "input_audio": {"type": "object", "properties": {"data": DATA, "format": {"type": "string"}},
                        "required": ["data"]}}
    key = {"input_image": "image_url"}
    parts = [text, *({"type": "object", "properties": {"type": {"enum": [kind]}, key.get(kind, kind): forms[kind]},
                      "required": ["type", key.get(kind, kind)]} for kind in media)]
    return WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": parts}},
                                     *([{"type": "null"}] * or_null)]})


Content = str | list[dict[str, Any]]
CHAT = ("text",), ("image_url", "input_audio")
INPUT = ("input_text", "output_text", "text"), ("input_image", "input_audio")
ChatContent = Annotated[Content | None, _parts(*CHAT), _schema(*CHAT)]
InputContent = Annotated[Content | None, _parts(*INPUT), _schema(*INPUT)]
Images = Annotated[list[str] | None, Field(max_length=32), WithJsonSchema(
    {"anyOf": [{"type": "array", "items": DATA}, {"type": "null"}]})]       # Ollama's: base64 without data:


def with_images(text: str, images: list[str] | None) -> Content:
    """Ollama's form: images beside a text."""
    if not images:
        return text
    shown = [{"type": "image_url", "image_url": {"url": f"data:image/*;base64,{image}"}} for image in images]
    return [*shown, {"type": "text", "text": text}]


def as_text(content: Content | None) -> str | None:
    """Of a message that holds nothing else."""
    assert not isinstance(content, list)                 # its role was checked
    return content


def placed(content: Content | None, where: str) -> Content | None:
    """A content whose parts know the name of the field that they came in."""
    if not isinstance(content, list):
        return content
    return [{**part, "where": f"{where}.{n}"} for n, part in enumerate(content)]
