"""OpenAI's /v1/audio/transcriptions: a recording in a form, its text out."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ayllu.apps.hearing import ASK, Segment, Transcript, question_in, transcribe
from ayllu.engine.parts import MOST_BYTES, decoded
from ayllu.errors import BadMedia
from ayllu.server.faults import FieldError
from ayllu.server.media import BadPartError
from ayllu.server.openai import served_of, who
from ayllu.server.schema import transcriptions as schema
from ayllu.server.schema.media import Audio
from ayllu.server.served import Served
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.sse import Json

router = APIRouter(tags=["OpenAI"])
T = TypeVar("T")
PATH = "/v1/audio/transcriptions"
TAKES = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema.FORM}}}}
GIVES: dict[int | str, dict[str, Any]] = {200: {"model": schema.Transcription, "content": {
    "text/plain": {"schema": {"type": "string"}}}}}
DEAF = "{}: this model hears nothing: start the server with --senses FOLDER"
UNKNOWN = "unknown"                                      # the language, where nobody said it: none is recognised
REFUSED = {"stream": ("false",), "include[]": (), "chunking_strategy": ("auto",), "known_speaker_names[]": (),
           "known_speaker_references[]": (), "timestamp_granularities[]": ("segment",)}


@router.post(PATH, responses=GIVES, response_model=None, openapi_extra=TAKES)
async def transcriptions(request: Request) -> Response:
    """What is said in a recording. Longer ones are cut at quiet places into pieces that the model's ear takes. `prompt`
    is the question that the model is asked about each, where its senses were trained with another than the usual."""
    served = served_of(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise FieldError("file", "the recording comes as a form: curl -F file=@question.wav -F model=NAME")
    async with request.form(max_files=1, max_fields=16) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise FieldError("file", "the form has no file in its field `file`: curl -F file=@question.wav")
        fields = _fields(form)
        name = served.check_model(fields.get("model"))
        style, heat = _style(fields), _temperature(fields)
        if "audio" not in served.takes:
            raise FieldError("file", DEAF.format("file"))
        if (file.size or 0) > MOST_BYTES:
            raise BadPartError("file", f"file has {file.size:,} bytes, at most {MOST_BYTES:,} are taken: cut it, or "
                               "store it as FLAC or OGG")
        data = await file.read()
    speaker = ServedSpeaker(served, who(request), model=name, tally=request.scope["ayllu.tally"])
    found = await asyncio.to_thread(_told, "file", lambda: transcribe(
        speaker, data, "file", fields.get("prompt") or ASK, heat))
    return STYLES[style](found, served, fields.get("language") or UNKNOWN, heat)


def spoken(speaker: ServedSpeaker, audio: Audio) -> str:
    """A question or a message that came as a recording, in the field `audio`. In a thread."""
    if not speaker.hears:
        raise FieldError("audio", DEAF.format("audio"))
    return _told("audio", lambda: question_in(speaker, decoded(audio.data, "audio.data"), "audio"))


def _told(field: str, hear: Callable[[], T]) -> T:
    try:
        return hear()
    except BadMedia as error:
        raise BadPartError(field, str(error)) from error


def _fields(form: FormData) -> dict[str, str]:
    known = {"file", "model", "language", "prompt", "response_format", "temperature", *REFUSED}
    fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
    for key, value in fields.items():
        if key not in known:
            raise FieldError(key[:100], f"unknown field {key[:100]!r}; it can't be honoured: leave it out")
        if key in REFUSED and value not in REFUSED[key]:
            raise FieldError(key, f"{key}={value[:40]!r} can't be honoured here: leave it out")
    return fields


def _style(fields: dict[str, str]) -> str:
    style = fields.get("response_format", "json")
    if style not in STYLES:
        raise FieldError("response_format", f"response_format={style[:40]!r}: use {', '.join(STYLES)}")
    return style


def _temperature(fields: dict[str, str]) -> float:
    try:
        found = float(fields.get("temperature") or 0)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise FieldError("temperature", "temperature: a number from 0 to 1")
    return found


def _json(found: Transcript, served: Served, language: str, heat: float) -> Response:
    return Json({"text": found.text})


def _text(found: Transcript, served: Served, language: str, heat: float) -> Response:
    return PlainTextResponse(found.text + "\n")


def _verbose(found: Transcript, served: Served, language: str, heat: float) -> Response:
    segments = [_segment(served, n, segment, heat) for n, segment in enumerate(found.segments)]
    return Json(schema.Verbose(language=language, duration=round(found.seconds, 3), text=found.text,
                               segments=segments).model_dump())


def _segment(served: Served, n: int, segment: Segment, heat: float) -> schema.Segment:
    text = segment.answer.text
    raw = text.encode()
    return schema.Segment(id=n, start=round(segment.start, 3), end=round(segment.end, 3), text=text, temperature=heat,
                          tokens=served.tokenizer.encode(text, bos=False), avg_logprob=segment.answer.logprob or 0.0,
                          compression_ratio=round(len(raw) / len(zlib.compress(raw)), 3))


def _srt(found: Transcript, served: Served, language: str, heat: float) -> Response:
    blocks = [f"{n}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{s.answer.text}\n"
              for n, s in enumerate(found.segments, 1)]
    return PlainTextResponse("\n".join(blocks))


def _vtt(found: Transcript, served: Served, language: str, heat: float) -> Response:
    blocks = [f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{s.answer.text}\n" for s in found.segments]
    return PlainTextResponse("\n".join(["WEBVTT\n", *blocks]))


def _clock(seconds: float, point: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


STYLES: dict[str, Callable[[Transcript, Served, str, float], Response]] = {
    "json": _json, "text": _text, "verbose_json": _verbose, "srt": _srt, "vtt": _vtt}
