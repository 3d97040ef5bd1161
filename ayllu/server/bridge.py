"""The only bridge between asyncio and the engine: all requests of one call as one stream of tokens, with a deadline.

The engine runs in a process of its own (engine/apart.py), in a thread (engine/service.py) or on other machines
(engine/far.py). Closing the stream, for whatever reason, cancels what still runs, so that its pages are free before the
engine's next step.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

from ayllu.engine.apart import Asking
from ayllu.engine.far import FarService, FarStream
from ayllu.engine.request import Request, Token
from ayllu.engine.service import Service, TokenStream
from ayllu.errors import EngineFailed
from ayllu.server.faults import TimeLimitError

AnyService = Service | Asking | FarService


class Tokens(AsyncIterator[tuple[int, Token]]):
    """(which request of the call, token), as they are chosen."""

    def __init__(self, streams: Sequence[TokenStream | FarStream], n_samples: Sequence[int], limit_s: float) -> None:
        self.streams = streams
        self._ready: deque[tuple[int, Token] | Exception] = deque()
        self._arrival: asyncio.Future[None] | None = None        # that the reader waits for
        late = TimeLimitError(f"the answer was not finished after {limit_s:g} s, the server's limit: ask for fewer "
                              "tokens, or stream")
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._put, late)
        self._pumps = [asyncio.ensure_future(self._pump(i, stream)) for i, stream in enumerate(streams)
                       if isinstance(stream, FarStream)]
        self._n_open = sum(n_samples)
        for i, stream in enumerate(streams):
            if isinstance(stream, TokenStream):
                stream.pass_to(partial(self._take, i))

    async def __anext__(self) -> tuple[int, Token]:
        """The next token; an error of the engine, or of time, ends all."""
        if not self._n_open:
            raise StopAsyncIteration
        while not self._ready:
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        item = self._ready.popleft()
        if isinstance(item, Exception):
            raise item
        self._n_open -= item[1].finish is not None
        return item

    def cancel(self, request: int, sample: int) -> None:
        """This sample has met a stop string."""
        self.streams[request].cancel(sample)

    def close(self) -> None:
        """Nobody reads on."""
        self._timer.cancel()
        for pump in self._pumps:
            pump.cancel()
        for stream in self.streams:
            stream.cancel()

    def _take(self, number: int, token: Token | EngineFailed) -> None:
        self._put(token if isinstance(token, EngineFailed) else (number, token))

    def _put(self, item: tuple[int, Token] | Exception) -> None:
        self._ready.append(item)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def _pump(self, number: int, stream: FarStream) -> None:
        try:
            async for token in stream:
                self._put((number, token))
        except Exception as error:                       # the reader's to raise
            self._put(error)


async def submit(service: AnyService, requests: Sequence[Request], limit_s: float) -> Tokens:
    """Queue all requests of a call, or none: the first refusal cancels the others and is raised."""
    streams: list[TokenStream | FarStream] = []
    try:
        for request in requests:
            streams.append(await service.submit(request))
    except BaseException:
        for stream in streams:
            stream.cancel()
        raise
    return Tokens(streams, [request.params.n for request in requests], limit_s)
