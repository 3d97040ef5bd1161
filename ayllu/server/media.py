"""Images and sounds in what callers send: decoded, fetched where that is allowed, refused by the field's name."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ayllu.apps.translate.fetch import Limits, fetch
from ayllu.engine.parts import KIND_OF, Fetch
from ayllu.engine.perception import Shown, read_by
from ayllu.errors import BadMedia, DataError, RequestError
from ayllu.server.faults import FieldError
from ayllu.server.served import Served

FETCHED = 16 * 2**20                                     # bytes of an image elsewhere
FETCH_S = 10.0


class BadPartError(BadMedia, FieldError):
    """An image or a sound that can't be read, by its field."""


def seen(served: Served, messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Shown]]:
    """Messages of texts with stand-ins, and what these show. In a thread: decoding takes its time."""
    fields = _fields(messages)
    try:
        return read_by(served.perception, messages, _fetch_for(served))
    except BadMedia as error:
        field = max((field for field in fields if str(error).startswith(field)), key=len, default=None)
        raise BadPartError(field or "messages", str(error)) from error
    except RequestError as error:
        if served.perception is None and fields:
            raise FieldError(fields[0], f"{fields[0]}: {error}") from error
        raise


def shows(contents: Sequence[Any]) -> bool:
    """Whether any of these contents of messages holds more than text."""
    return any(isinstance(content, list) for content in contents)


def _fields(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [part["where"] for message in messages if isinstance(message.get("content"), list)
            for part in message["content"] if part.get("type") in KIND_OF and "where" in part]


def _fetch_for(served: Served) -> Fetch | None:
    hosts = served.media_hosts
    if not hosts:
        return None

    def get(url: str, where: str) -> bytes:
        try:
            host = urlsplit(url).hostname
            if host not in hosts:
                raise BadMedia(f"{where} lies on {str(host)[:100]}, and this server fetches from "
                               f"{', '.join(sorted(hosts))} only: send it as a data: URL")
            return fetch(url, Limits(FETCHED, FETCH_S, hosts=hosts)).data
        except (DataError, RequestError, ValueError) as error:
            if isinstance(error, BadMedia):
                raise
            raise BadMedia(f"{where} can't be fetched: {error}") from error

    return get
