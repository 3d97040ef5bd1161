"""OpenAI's /v1/audio/transcriptions. Whether nobody speaks isn't known, so no_speech_prob is left out."""

from typing import Any, Literal

from ayllu.server.schema.base import Answer

FORM: dict[str, Any] = {"type": "object", "required": ["file"], "properties": {
    "file": {"type": "string", "format": "binary"}, "model": {"type": "string"},
    "language": {"type": "string", "description": "told back; none is recognised"},
    "prompt": {"type": "string", "description": "the question that the model is asked about each piece"},
    "response_format": {"enum": ["json", "text", "verbose_json", "srt", "vtt"]},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1}}}


class Segment(Answer):
    """A piece of the recording; start and end in seconds."""

    id: int
    seek: int = 0
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float


class Verbose(Answer):
    """With its pieces."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    segments: list[Segment]


class Transcription(Answer):
    """What was said; with verbose_json also what `Verbose` has."""

    text: str
    task: Literal["transcribe"] | None = None
    language: str | None = None
    duration: float | None = None
    segments: list[Segment] | None = None
