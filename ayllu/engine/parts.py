"""Images and sounds among the messages of a conversation, in OpenAI's form:

    {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}
    {"type": "input_audio", "input_audio": {"data": "...", "format": "wav"}}

Within a message the only image or sound comes before its text, as senses are trained; of several, the order counts.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ayllu.errors import BadMedia, RequestError
from ayllu.text.marks import MEDIA

Kind = Literal["image", "audio"]
Fetch = Callable[[str, str], bytes]                      # an http address, what errors call it -> its bytes
MOST_BYTES = 64 * 2**20                                  # of a file that is read as a part
MOST_MEDIA = 32                                          # in one conversation
KIND_OF = {"image_url": "image", "input_audio": "audio"}


class Part(NamedTuple):
    """One image or sound as it came; `name` is what errors call it."""

    kind: Kind
    data: bytes
    name: str


def image_part(file: str | Path) -> dict[str, Any]:
    """A file as a part of a message."""
    return {"type": "image_url", "image_url": {"url": "data:image/*;base64," + _encoded(Path(file))},
            "where": str(file)}


def audio_part(file: str | Path) -> dict[str, Any]:
    """A file as a part of a message."""
    return {"type": "input_audio", "input_audio": {"data": _encoded(Path(file)), "format": Path(file).suffix[1:]},
            "where": str(file)}


def audio_bytes(data: bytes) -> dict[str, Any]:
    """A WAV file in memory as a part of a message."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def has_media(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is anything but text."""
    return any(isinstance(message.get("content"), list)
               and any(isinstance(part, dict) and part.get("type") in KIND_OF for part in message["content"])
               for message in messages)


def taken_out(messages: Sequence[Mapping[str, Any]], fetch: Fetch | None = None
              ) -> tuple[list[dict[str, Any]], list[Part]]:
    """The messages with texts for contents, in which a stand-in (text/marks.py) marks each image and sound; and these.
    A part may say `where` it came from, for errors."""
    turns, found = [], list[Part]()
    for number, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, list):
            turns.append(dict(message))
            continue
        pieces, n_before = list[str](), len(found)
        for k, part in enumerate(content):
            pieces.append(_piece(part, f"message {number}, part {k}", found, fetch))
        if len(found) > MOST_MEDIA:
            raise RequestError(f"more than {MOST_MEDIA} images and sounds in one conversation: leave older ones out")
        if len(found) > n_before and message["role"] == "assistant":
            raise RequestError(f"{found[-1].name}: the assistant writes text only, its message can't hold an image or "
                               "a sound")
        if len(found) - n_before == 1:
            pieces.sort(key=lambda piece: piece not in MEDIA.values())
        turns.append({**message, "content": "".join(pieces)})
    if sum(str(turn.get("content")).count(mark) for turn in turns for mark in MEDIA.values()) > len(found) > 0:
        raise RequestError("a message holds a Unicode noncharacter (U+FDEE or U+FDEF), which is no text: remove it")
    return turns, found


def _piece(part: Any, where: str, found: list[Part], fetch: Fetch | None) -> str:
    if isinstance(part, str):
        return part
    type_ = part.get("type") if isinstance(part, dict) else type(part).__name__
    if type_ == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if type_ not in KIND_OF:
        raise RequestError(f"{where} has the type {str(type_)[:40]!r}: use text, {' or '.join(KIND_OF)}")
    where, kind = part.get("where", where), KIND_OF[type_]
    inner = part.get(type_)
    value = inner.get("url" if kind == "image" else "data") if isinstance(inner, dict) else inner
    if not isinstance(value, str):
        raise RequestError(f"{where} holds no {'url' if kind == 'image' else 'data'}: give "
                           + ("a data: URL" if kind == "image" else "the sound's bytes in base64"))
    data = _from_url(value, where, fetch) if kind == "image" else decoded(value, where)
    found.append(Part(kind, data, where))                # type: ignore[arg-type]
    return MEDIA[kind]


def _from_url(url: str, where: str, fetch: Fetch | None) -> bytes:
    if url[:5].lower() == "data:":
        head, comma, data = url[5:].partition(",")
        media, *more = head.lower().split(";")
        if not comma or "base64" not in more:
            raise BadMedia(f"{where} is a data: URL without base64: give data:image/png;base64,...")
        if media and not media.startswith(("image/", "application/octet-stream")):
            raise BadMedia(f"{where} says that it is {media[:60]}, which is no image: give PNG, JPEG, WebP or GIF")
        return decoded(data, where)
    if not url[:8].lower().startswith(("http://", "https://")):
        raise BadMedia(f"{where} is no data: URL (it begins with {url[:20]!r}): give data:image/png;base64,...")
    if fetch is None:
        raise BadMedia(f"{where} lies elsewhere, and nothing is fetched from there: send its bytes as a data: URL (a "
                       "server fetches from the machines that --media-hosts names)")
    return fetch(url, where)


def decoded(text: str, where: str) -> bytes:
    """Bytes from base64; line breaks are passed over."""
    if len(text) > MOST_BYTES * 4 // 3 + 4:
        raise BadMedia(f"{where} has more than {MOST_BYTES:,} bytes: make it smaller")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMedia(f"{where} is no base64 ({error}): send the file's bytes in base64, whole") from error


def file_bytes(file: Path) -> bytes:
    """A file's bytes; BadMedia where it is too large or can't be read."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadMedia(f"{file} has {file.stat().st_size:,} bytes, more than {MOST_BYTES:,}: make it smaller")
        return file.read_bytes()
    except OSError as error:
        raise BadMedia(f"{file} can't be read ({error.strerror or error}): give the path of a file") from error


def _encoded(file: Path) -> str:
    return base64.b64encode(file_bytes(file)).decode()
