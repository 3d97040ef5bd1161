"""What an application yields, step by step, for a route: applications are synchronous, so each step is a thread's.

    async with aclosing(steps(compose(brief, speaker))) as events: ...
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.faults import Fault, body_of
from ayllu.server.sse import DONE, Json, Stream, event, or_gone

T = TypeVar("T")
THREADS = ThreadPoolExecutor(64, thread_name_prefix="ayllu-step")    # each waits for a token most of the time
END: Any = object()


async def steps(items: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """The items of a generator, which is closed in the end; a step that is under way is waited for first."""
    loop, step = asyncio.get_running_loop(), None
    try:
        while True:
            step = loop.run_in_executor(THREADS, next, items, END)
            item = await asyncio.shield(step)
            if item is END:
                return
            yield item
    finally:
        if step is not None and not step.done():
            await asyncio.wait([step])
        await loop.run_in_executor(THREADS, items.close)


async def told(request: Request, items: Generator[dict[str, Any], None, None], is_stream: bool) -> Response:
    """Server-sent events, one for each item, and [DONE]; what is wrong before the first is an answer of its own. No
    stream: the last item alone."""
    if not is_stream:
        done = await or_gone(request, last(items)) or {}
        return Json({key: value for key, value in done.items() if key != "type"})
    found = steps(items)
    first = await anext(found)

    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            yield event(first)
            async for item in found:
                yield event(item)
            yield DONE
        finally:
            await found.aclose()

    def tell(fault: Fault) -> bytes:
        return event(body_of(request.url.path, fault))

    return Stream(parts(), lambda: None, tell=tell)


async def last(items: Generator[T, None, None]) -> T:
    """The last item."""
    found: T = END
    async with aclosing(steps(items)) as stream:
        async for item in stream:
            found = item
    return found
