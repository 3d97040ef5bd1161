"""One run as an HTTP answer: a stream, or everything at once."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.asking import Run
from ayllu.server.faults import Fault
from ayllu.server.sse import Json, Stream, or_gone
from ayllu.server.writing import Written


def streamed(run: Run, parts: AsyncGenerator[bytes, None], tell: Callable[[Fault], bytes], *,
             is_sse: bool = True) -> Response:
    """Piece by piece; `tell` writes an error that comes when the answer has begun."""
    return Stream(parts, run.close, is_sse=is_sse, headers=run.headers, news=run.listen, tell=tell)


async def whole(run: Run, request: Request, write: Callable[[list[Written]], Any]) -> Response:
    """All answers when they are finished; nothing where the client left before."""
    try:
        answers = await or_gone(request, run.whole())
    finally:
        run.close()
    return Response(status_code=499) if answers is None else Json(write(answers), headers=run.headers)
