"""`Service`: the engine in a thread of its own, for asyncio. Here, and in apart.py, the two meet.

    async with Service(engine) as service:               # leaving it waits for the requests that are under way
        stream = await service.submit(Request(ids, params))      # raises RequestError, ContextTooLong, Overloaded
        async with stream:                               # leaving it early frees the request's pages at once
            async for token in stream:                   # request.Token, until every sample has its finish
                ...
                stream.cancel(token.sample)              # this sample has met a stop string

All commands reach the engine between two steps, so that `Engine` itself needs no locks. A token whose reader is slow
waits in its own queue and holds nobody up. If the engine breaks, every stream ends with `EngineFailed`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

from ayllu.adapters.lora import Adapter
from ayllu.engine.counts import Counts, counts_of
from ayllu.engine.embed import mean_hidden
from ayllu.engine.engine import Engine
from ayllu.engine.ranks import LedEngine
from ayllu.engine.request import Grammar, Request, Token
from ayllu.engine.turns import Turns
from ayllu.errors import EngineFailed, Overloaded, RequestError

R = TypeVar("R")
CLOSING = "the server is shutting down: try again later, or elsewhere"


class Cancels(Protocol):
    """Where a stream comes from."""

    @property
    def failure(self) -> str:
        """Why nothing more will come, if so."""

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples."""


class TokenStream(AsyncIterator[Token]):
    """The tokens of one request as they are chosen. `seed` repeats them. Used in one event loop only."""

    def __init__(self, service: Cancels, number: int, seed: int, n_samples: int) -> None:
        self.number, self.seed = number, seed
        self._service = service
        self._tokens: asyncio.Queue[Token | None] = asyncio.Queue()      # None: the engine is gone
        self.put: Callable[[Token | None], None] = self._tokens.put_nowait
        self._open = set(range(n_samples))               # samples whose finish is still to come

    async def __anext__(self) -> Token:
        """The next token of any sample."""
        if not self._open:
            raise StopAsyncIteration
        token = await self._tokens.get()
        if token is None:
            self._open.clear()
            raise EngineFailed(self._service.failure)
        if token.finish is not None:
            self._open.discard(token.sample)
        return token

    def pass_to(self, take: Callable[[Token | EngineFailed], None]) -> None:
        """Instead of being read, the stream hands its tokens on: no task has to wake up for each of them."""
        def put(token: Token | None) -> None:
            if token is not None and token.finish is not None:
                self._open.discard(token.sample)
            take(EngineFailed(self._service.failure) if token is None else token)

        self.put = put
        while not self._tokens.empty():
            put(self._tokens.get_nowait())

    def cancel(self, sample: int | None = None) -> None:
        """End one sample, or all; their last tokens say "cancelled", unless they ended by themselves before."""
        if self._open:
            self._service.cancel(self.number, sample)

    async def __aenter__(self) -> "TokenStream":
        """The stream itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nobody reads on: whatever still runs is cancelled."""
        self.cancel()
        self._open.clear()


class Service:
    """Runs an engine and hands its tokens to the event loops of those who asked."""

    def __init__(self, engine: Engine | LedEngine, max_wait_s: float | None = None) -> None:
        """`max_wait_s`: a request that would wait longer in the queue is refused with Overloaded at once."""
        self.engine = engine
        self._turns = Turns(engine, max_wait_s, self._hand_out)
        self._readers: dict[int, tuple[asyncio.AbstractEventLoop, TokenStream]] = {}   # by request; the thread's own
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="ayllu-engine", daemon=True)

    async def __aenter__(self) -> "Service":
        """Start the thread."""
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the requests that are under way finish, then end the thread."""
        await self.drain()

    @property
    def failure(self) -> str:
        """Why the thread ended, if it did by an error."""
        return self._turns.failure

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def submit(self, request: Request) -> TokenStream:
        """Queue a request; its errors are raised here, before any token."""
        loop, numbers = asyncio.get_running_loop(), list[int]()

        def run() -> TokenStream:
            number = self._turns.submit(request)
            numbers.append(number)
            stream = TokenStream(self, number, self.engine.seed(number) or 0, request.params.n)
            self._readers[number] = loop, stream
            return stream

        if self._is_closing:
            raise Overloaded(CLOSING)
        if request.grammar is not None:                  # compiled away from the engine's thread
            await self.check_grammar(request.grammar)
        try:
            return await self.call(run)
        except asyncio.CancelledError:                   # the caller went away before there was a stream to close
            self._turns.put(lambda _: self._cancel_all(numbers))
            raise

    def refusal(self, n_coming: int = 0) -> str | None:
        """Why a new request wouldn't be taken after `n_coming` that are on their way, or None. Any thread may ask."""
        return self._turns.refusal(n_coming)

    def retry_s(self) -> int:
        """Seconds after which whoever was refused may try again. Any thread may ask."""
        return self._turns.retry_s()

    def counts(self) -> Counts:
        """What the engine holds and has done. Any thread may ask."""
        return counts_of(self.engine)

    async def check_grammar(self, grammar: Grammar) -> None:
        """Compile a form that answers are to have, and keep it; what is wrong with it is raised."""
        await asyncio.to_thread(self.engine.check_grammar, grammar)

    async def embed(self, ids: Sequence[int], adapter: str | None = None) -> list[float]:
        """One vector of length 1 for a text (embed.py)."""
        engine = self.engine
        if isinstance(engine, LedEngine):
            raise RequestError("a server of several ranks gives no embeddings: ask one that runs in one process")
        return await self.call(lambda: mean_hidden(engine, ids, adapter))

    async def load_adapter(self, name: str, adapter: Adapter, replace: bool = False, origin: str = "") -> None:
        """Let requests name this adapter."""
        await self.call(lambda: self.engine.load_adapter(name, adapter, replace, origin))

    async def unload_adapter(self, name: str) -> int:
        """Later requests don't find it; gives how many that aren't over go on with it."""
        return await self.call(lambda: self.engine.unload_adapter(name))

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples, before the engine's next step."""
        self._turns.put(lambda _: self.engine.cancel(number, sample))

    async def call(self, run: Callable[[], R]) -> R:
        """What `run` gives when it is called in the engine's thread, between two steps (to look at counts, say)."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()

        def command(failed: EngineFailed | None) -> None:
            try:
                if failed is not None:
                    raise failed
                value = run()
            except Exception as error:                   # the caller's to handle, whatever it is
                _call_soon(loop, settle, result, None, error)
            else:
                _call_soon(loop, settle, result, value, None)

        self._turns.put(command)
        if self.failure:                                 # nobody will read the command
            raise EngineFailed(self.failure)
        return await result

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take no more requests, let the running ones finish, and end the thread; after the time, cancel them."""
        self._is_closing = True
        self._turns.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive():
            self._turns.put(lambda _: self._cancel_all(list(self._readers)))
            await asyncio.to_thread(self._thread.join)

    def close(self) -> None:
        """After the thread's end: let other ranks go, where there are any."""
        if isinstance(self.engine, LedEngine) and not self.failure:
            self.engine.close()

    def _run(self) -> None:
        try:
            self._turns.run()
        except Exception:                                # whatever broke, nobody may wait for ever
            for loop, stream in self._readers.values():
                _call_soon(loop, _put_all, [(stream, None)])
            raise

    def _cancel_all(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.engine.cancel(number)

    def _hand_out(self, tokens: Sequence[Token]) -> None:
        """One wake-up for each event loop, however many tokens it gets."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[TokenStream, Token]]] = {}
        for token in tokens:
            loop, stream = self._readers[token.request]
            by_loop.setdefault(loop, []).append((stream, token))
        for loop, pairs in by_loop.items():
            _call_soon(loop, _put_all, pairs)
        for number in {token.request for token in tokens if token.finish is not None}:
            if self.engine.seed(number) is None:         # all its samples are over
                del self._readers[number]


def settle(result: "asyncio.Future[R]", value: R, error: Exception | None) -> None:
    """Give a caller what it waits for."""
    if result.done():                                    # its caller went away
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)


def _put_all(pairs: Sequence[tuple[TokenStream, Token | None]]) -> None:
    for stream, token in pairs:
        stream.put(token)


def _call_soon(loop: asyncio.AbstractEventLoop, run: Callable[..., None], *args: object) -> None:
    """Run something in an event loop; one that is closed has nobody left who waits."""
    try:
        loop.call_soon_threadsafe(run, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
