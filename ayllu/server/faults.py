"""From errors to HTTP: one table of statuses, and each API's own form of an error body."""

import json
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

from ayllu import errors
from ayllu.errors import AylluError, Overloaded, RequestError
from ayllu.log import logger


class FieldError(RequestError):
    """A field that can't be honoured, by its name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(RequestError):
    """A name that nothing here has."""


class TimeLimitError(AylluError):
    """An answer that was not finished in the time that the server gives."""


@dataclass(eq=False)
class Fault(Exception):  # noqa: N818 - an HTTP answer
    """An answer that is no success."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


# error -> (status, OpenAI's type, code); the first row that fits counts
TABLE: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (errors.UnknownAdapter, 404, "invalid_request_error", "model_not_found"),
    (errors.NotFound, 404, "invalid_request_error", "not_found"),
    (errors.ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (errors.BadMedia, 400, "invalid_request_error", "bad_media"),
    (errors.Refused, 403, "permission_error", "refused"),
    (RequestError, 400, "invalid_request_error", None),
    (errors.ConfigError, 400, "invalid_request_error", None),
    (errors.NotAllowed, 401, "authentication_error", "invalid_api_key"),
    (Overloaded, 503, "overloaded_error", "queue_full"),
    (TimeLimitError, 504, "timeout_error", "timeout"),
    (errors.EngineFailed, 500, "server_error", "engine_failed"),
    (errors.MissingExtra, 501, "server_error", "missing_extra"),
)
ANTHROPIC_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                   404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
                   504: "timeout_error"}


def fault_of(error: Exception) -> Fault:
    """What a caller is told of an error. Of one that we didn't foresee only that: its text may hold theirs."""
    if isinstance(error, Fault):
        return error
    for kind, status, type_, code in TABLE:
        if isinstance(error, kind):
            param = error.param if isinstance(error, FieldError) else None
            headers = {"retry-after": str(error.retry_s)} if isinstance(error, Overloaded) else {}
            return Fault(status, str(error), type_, param, code, headers)
    logger.error("the server failed: %s", type(error).__name__, exc_info=error)
    return Fault(500, "the server failed; its log says where", "server_error", None, "internal_error")


def body_of(path: str, fault: Fault) -> dict[str, Any]:
    """The error in the form of the API that the path belongs to."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": ANTHROPIC_TYPES.get(fault.status, "api_error"),
                                           "message": fault.message}, "request_id": None}
    if path.startswith("/api/"):
        return {"error": fault.message}
    return {"error": {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}}


ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))   # once: asked per token


def dump(value: Any) -> bytes:
    """JSON in UTF-8; ASCII only where the text holds half characters."""
    text = ENCODER.encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def dump_text(text: str) -> bytes:
    """The same for one text."""
    try:
        return encode_basestring(text).encode()
    except UnicodeEncodeError:
        return json.dumps(text).encode()


async def send_fault(path: str, send: Any, fault: Fault, *, close: bool = False) -> None:
    """Answer with an error, from outside the application; `close` ends the connection too."""
    body = dump(body_of(path, fault))
    headers = {"content-type": "application/json", "content-length": str(len(body)), **fault.headers}
    if close:
        headers["connection"] = "close"
    await send({"type": "http.response.start", "status": fault.status,
                "headers": [(k.encode(), v.encode("latin-1", "replace")) for k, v in headers.items()]})
    await send({"type": "http.response.body", "body": body})
