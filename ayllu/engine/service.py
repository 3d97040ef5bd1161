"""`Service`: the engine in a thread of its own, for asyncio. The only place where the two meet.

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
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from ayllu.engine.engine import Engine
from ayllu.engine.pace import Pace
from ayllu.engine.ranks import LedEngine
from ayllu.engine.request import Request, Token
from ayllu.errors import EngineFailed, Overloaded

R = TypeVar("R")
TokenQueue = asyncio.Queue[Token | None]                 # None: the engine is gone
Command = Callable[[EngineFailed | None], None]          # called with what keeps it from being done, if anything


class TokenStream(AsyncIterator[Token]):
    """The tokens of one request as they are chosen. `seed` repeats them."""

    def __init__(self, service: "Service", number: int, seed: int, n_samples: int, tokens: TokenQueue) -> None:
        self.number, self.seed = number, seed
        self._service, self._tokens = service, tokens
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
        self.engine, self.max_wait_s = engine, max_wait_s
        self._pace = Pace()
        self.failure = ""                                # why the thread ended, if it did by an error
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()   # None: end when all is done
        self._readers: dict[int, tuple[asyncio.AbstractEventLoop, TokenQueue]] = {}   # by request; the thread's own
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="ayllu-engine", daemon=True)

    async def __aenter__(self) -> "Service":
        """Start the thread."""
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the requests that are under way finish, then end the thread."""
        await self.drain()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def submit(self, request: Request) -> TokenStream:
        """Queue a request; its errors are raised here, before any token."""
        loop, tokens, numbers = asyncio.get_running_loop(), TokenQueue(), list[int]()

        def run() -> TokenStream:
            if why := self.refusal():
                raise Overloaded(why)
            number = self.engine.submit(request)
            numbers.append(number)
            self._readers[number] = loop, tokens
            return TokenStream(self, number, self.engine.seed(number) or 0, request.params.n, tokens)

        if self._is_closing:
            raise Overloaded("the server is shutting down: try again later, or elsewhere")
        if request.grammar is not None:                  # compiled away from the engine's thread
            await asyncio.to_thread(self.engine.check_grammar, request)
        try:
            return await self.call(run)
        except asyncio.CancelledError:                   # the caller went away before there was a stream to close
            self._commands.put(lambda _: self._cancel_all(numbers))
            raise

    def refusal(self) -> str | None:
        """Why a new request wouldn't be taken, or None. Any thread may ask: it reads a few counts."""
        scheduler = self.engine.scheduler
        n_ahead = len(scheduler.waiting)
        if self.max_wait_s is None or not n_ahead:
            return None
        rows = [(len(row.ids) - row.n_prompt, row.room) for row in tuple(scheduler.running)]
        n_most = self.engine.settings.max_rows
        wait_s = self._pace.wait_s(n_ahead, rows, n_most - len(rows), time.monotonic())
        if wait_s is None and n_ahead >= n_most:      # as long as nothing is known
            return f"{n_ahead} requests wait already: try again later"
        if wait_s is not None and wait_s > self.max_wait_s:
            return (f"a new request would wait about {wait_s:.1f} s, and this server lets nobody wait longer than "
                    f"{self.max_wait_s:g} s: try again later")
        return None

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples, before the engine's next step."""
        self._commands.put(lambda _: self.engine.cancel(number, sample))

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
                _call_soon(loop, _settle, result, None, error)
            else:
                _call_soon(loop, _settle, result, value, None)

        self._commands.put(command)
        if self.failure:                                 # nobody will read the command
            raise EngineFailed(self.failure)
        return await result

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take no more requests, let the running ones finish, and end the thread; after the time, cancel them."""
        self._is_closing = True
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive():
            self._commands.put(lambda _: self._cancel_all(list(self._readers)))
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        is_ending = False
        try:
            while not (is_ending and self.engine.is_idle and self._commands.empty()):
                is_ending |= self._obey(wait=self.engine.is_idle and not is_ending)
                chosen = self.engine.step()
                self._pace.observe(
                    time.monotonic(), n_tokens=sum(token.id is not None for token in chosen),
                    n_finished=sum(token.finish is not None for token in chosen),
                    n_moved=sum(token.start is not None for token in chosen),
                    n_waiting=len(self.engine.scheduler.waiting))
                self._hand_out(chosen)
        except Exception as error:                       # whatever broke, nobody may wait for ever
            self.failure = f"the engine failed: {type(error).__name__}: {error}"
            for loop, tokens in self._readers.values():
                _call_soon(loop, tokens.put_nowait, None)
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None:
                    command(EngineFailed(self.failure))
            raise

    def _obey(self, wait: bool) -> bool:
        """Do what was asked since the last step; gives whether the end was asked for."""
        is_ending = False
        while wait or not self._commands.empty():
            command = self._commands.get()
            wait = False
            if command is None:
                is_ending = True
            else:
                command(None)
        return is_ending

    def _cancel_all(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.engine.cancel(number)

    def _hand_out(self, tokens: Sequence[Token]) -> None:
        """One wake-up for each event loop, however many tokens it gets."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[TokenQueue, Token]]] = {}
        for token in tokens:
            loop, reader = self._readers[token.request]
            by_loop.setdefault(loop, []).append((reader, token))
        for loop, pairs in by_loop.items():
            _call_soon(loop, _put_all, pairs)
        for number in {token.request for token in tokens if token.finish is not None}:
            if self.engine.seed(number) is None:         # all its samples are over
                del self._readers[number]


def _put_all(pairs: Sequence[tuple[TokenQueue, Token]]) -> None:
    for tokens, token in pairs:
        tokens.put_nowait(token)


def _settle(result: "asyncio.Future[R]", value: R, error: Exception | None) -> None:
    if result.cancelled():                               # its caller went away
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)


def _call_soon(loop: asyncio.AbstractEventLoop, run: Callable[..., None], *args: object) -> None:
    """Run something in an event loop; one that is closed has nobody left who waits."""
    try:
        loop.call_soon_threadsafe(run, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
