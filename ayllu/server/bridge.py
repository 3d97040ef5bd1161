"""The only bridge between asyncio and the engine: all requests of one call as one stream of tokens, with a deadline.

The engine runs in its own thread behind `Service` (engine/service.py). Closing the stream, for whatever reason, cancels
what still runs, so that its pages are free before the engine's next step.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import torch

from ayllu.engine.far import FarService, FarStream
from ayllu.engine.ranks import LedEngine
from ayllu.engine.request import Request, Token
from ayllu.engine.runner import Batch
from ayllu.engine.service import Service, TokenStream
from ayllu.errors import RequestError
from ayllu.server.faults import TimeLimitError


class Tokens(AsyncIterator[tuple[int, Token]]):
    """(which request of the call, token), as they are chosen."""

    def __init__(self, streams: Sequence[TokenStream | FarStream], limit_s: float) -> None:
        self.streams = streams
        self._queue: asyncio.Queue[tuple[int, Token] | Exception | None] = asyncio.Queue()
        late = TimeLimitError(f"the answer was not finished after {limit_s:g} s, the server's limit: ask for fewer "
                              "tokens, or stream")
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._queue.put_nowait, late)
        self._pumps = [asyncio.ensure_future(self._pump(i, stream)) for i, stream in enumerate(streams)]
        self._n_open = len(streams)

    async def __anext__(self) -> tuple[int, Token]:
        """The next token; an error of the engine, or of time, ends all."""
        while self._n_open:
            item = await self._queue.get()
            if isinstance(item, Exception):
                raise item
            if item is not None:
                return item
            self._n_open -= 1
        raise StopAsyncIteration

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

    async def _pump(self, number: int, stream: TokenStream | FarStream) -> None:
        try:
            async for token in stream:
                self._queue.put_nowait((number, token))
        except Exception as error:                       # the reader's to raise
            self._queue.put_nowait(error)
        else:
            self._queue.put_nowait(None)


async def submit(service: Service | FarService, requests: Sequence[Request], limit_s: float) -> Tokens:
    """Queue all requests of a call, or none: the first refusal cancels the others and is raised."""
    streams: list[TokenStream | FarStream] = []
    try:
        for request in requests:
            streams.append(await service.submit(request))
    except BaseException:
        for stream in streams:
            stream.cancel()
        raise
    return Tokens(streams, limit_s)


async def embed(service: Service | FarService, ids: Sequence[int], adapter: str | None = None) -> list[float]:
    """One vector of length 1 for a text: the mean over its tokens of what the last layer gives, in the engine's thread
    between two steps. A model that was not trained for it gives rough neighbours, no more."""
    if isinstance(service, FarService):
        return await service.embed(ids, adapter)
    if isinstance(service.engine, LedEngine):
        raise RequestError("a server of several ranks gives no embeddings: ask one that runs in one process")
    runner = service.engine.runner

    @torch.inference_mode()
    def run() -> list[float]:
        cache, shelf = runner.new_cache([0], len(ids)), service.engine.adapters
        adapt = None if adapter is None else shelf.adapt([shelf.find(adapter)])
        hidden = runner.hidden(Batch(torch.tensor([list(ids)], device=runner.device), cache, adapt))[0]     # (T, D)
        mean = hidden.float().mean(dim=0)
        return (mean / mean.norm().clamp(min=1e-12)).tolist()

    return await service.call(run)
