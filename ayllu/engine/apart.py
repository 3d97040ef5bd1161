"""The engine in a process of its own, and the face of `Service` for those who ask it from here.

An HTTP server and an engine in one process take turns under Python's one lock: each token that is written down keeps
the engine waiting, and each small step of the engine keeps the answers. Apart they share no lock, only a pipe:

    Asking (here) -- calls, by number: submit, cancel, ... -->  Desk (there), which runs the engine
                  <-- for each step its tokens and counts, and the results of calls --

Both ends trust each other (pickle): the pipe is a pair of sockets without a name, which nobody else can open.
"""

import asyncio
import pickle
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from ayllu.adapters.lora import Adapter
from ayllu.engine.counts import Counts, counts_of
from ayllu.engine.embed import mean_hidden
from ayllu.engine.engine import Engine
from ayllu.engine.far import FarEngine
from ayllu.engine.request import Grammar, Request, Token
from ayllu.engine.service import CLOSING, TokenStream, settle
from ayllu.engine.shelf import Loaded
from ayllu.engine.turns import Turns
from ayllu.errors import EngineFailed, Overloaded

KILL_S = 5.0                                             # that cancelled answers get to end


class Desk:
    """The engine's side: does what comes through the pipe, and tells what each step gave."""

    def __init__(self, engine: Engine, pipe: Connection, max_wait_s: float | None = None,
                 left: Callable[[], None] = lambda: None) -> None:
        """`left` is called when the other side is gone: nobody is there who asked for anything."""
        self.engine, self.pipe, self._left = engine, pipe, left
        self._turns = Turns(engine, max_wait_s, self._give)
        self._tickets: dict[int, int] = {}               # of the requests that aren't over: the caller's numbers
        self._numbers: dict[int, int] = {}               # the other way round
        self._compiling: set[int] = set()                # requests whose form is compiled
        self._unwanted: set[int] = set()                 # of them, those that were cancelled
        self._told: Any = None
        self._sending = threading.Lock()
        self._does: dict[str, Callable[..., Any]] = {
            "embed": lambda ids, adapter: mean_hidden(engine, ids, adapter),
            "load": self._load, "unload": self._unload}

    def run(self) -> None:
        """Until the other side says that it's the end, or is gone, or the engine breaks, which is told and raised."""
        threading.Thread(target=self._listen, name="ayllu-pipe", daemon=True).start()
        self._tell()
        try:
            self._turns.run()
        except Exception:                                # told to the other side, then raised
            self._send("failed", self._turns.failure)
            raise

    def _listen(self) -> None:
        """Take what comes at once, so that the other side never waits while it sends."""
        while True:
            try:
                kind, ticket, *rest = pickle.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                self._left()
                return
            if kind == "end":
                self._turns.put(None)
            elif kind == "cancel":
                self._turns.put(partial(self._cancel, ticket, rest[0]))
            elif kind == "grammar" or (kind == "submit" and rest[0].grammar is not None):
                self._compiling.add(ticket)
                threading.Thread(target=self._compile, args=(kind, ticket, *rest), daemon=True).start()
            else:
                self._put(kind, ticket, *rest)

    def _put(self, kind: str, ticket: int, *rest: Any) -> None:
        def command(failed: EngineFailed | None) -> None:
            try:
                if failed is not None:
                    raise failed
                value = self._submit(ticket, rest[0]) if kind == "submit" else self._does[kind](*rest)
            except Exception as error:                   # the caller's to handle, whatever it is
                self._send("done", ticket, None, error)
            else:
                self._send("done", ticket, value, None)

        self._turns.put(command)
        if self._turns.failure:                          # nobody will read the command
            self._send("done", ticket, None, EngineFailed(self._turns.failure))

    def _compile(self, kind: str, ticket: int, asked: Any) -> None:
        """Away from the engine's thread; what is compiled is kept."""
        try:
            self.engine.check_grammar(asked if kind == "grammar" else asked.grammar)
        except Exception as error:                       # the caller's to handle, whatever it is
            self._compiling.discard(ticket)
            self._send("done", ticket, None, error)
            return
        if kind == "submit":
            self._put(kind, ticket, asked)
        else:
            self._compiling.discard(ticket)
            self._send("done", ticket, None, None)

    def _submit(self, ticket: int, request: Request) -> int:
        self._compiling.discard(ticket)
        if ticket in self._unwanted:
            self._unwanted.discard(ticket)
            raise Overloaded("cancelled before it was queued")
        number = self._turns.submit(request)
        self._tickets[number], self._numbers[ticket] = ticket, number
        return self.engine.seed(number) or 0

    def _cancel(self, ticket: int, sample: int | None, _: EngineFailed | None) -> None:
        if ticket in self._numbers:
            self.engine.cancel(self._numbers[ticket], sample)
        elif ticket in self._compiling:
            self._unwanted.add(ticket)

    def _load(self, name: str, adapter: Adapter, replace: bool, origin: str) -> None:
        self.engine.load_adapter(name, adapter, replace, origin)
        self._tell()

    def _unload(self, name: str) -> int:
        n_left = self.engine.unload_adapter(name)
        self._tell()
        return n_left

    def _give(self, tokens: Sequence[Token]) -> None:
        """One message for each step."""
        given: list[Any] = []
        for token in tokens:
            ticket = self._tickets[token.request]
            is_plain = token.finish is None and token.start is None and token.logprob is None
            given.append((ticket, token.sample, token.id) if is_plain else token._replace(request=ticket))
        for number in {token.request for token in tokens if token.finish is not None}:
            if self.engine.seed(number) is None:         # all its samples are over
                del self._numbers[self._tickets.pop(number)]
        self._tell(given)

    def _tell(self, tokens: Sequence[Any] = ()) -> None:
        """What was chosen, and what has changed."""
        shelf = tuple(self.engine.adapters.loaded.values())
        entry = self._turns.entry()
        state = counts_of(self.engine), entry, [(a.name, a.n_users, a.n_requests) for a in shelf]
        if tokens or state != self._told:
            news = None if self._told is not None and state[2] == self._told[2] else shelf
            self._told = state
            self._send("step", tokens, state[0], entry, news)

    def _send(self, *message: Any) -> None:
        try:
            data = pickle.dumps(message, protocol=5)
        except Exception as error:                       # an exception that can't travel
            assert message[0] == "done"
            data = pickle.dumps((*message[:3], EngineFailed(f"{type(message[3]).__name__}: {message[3]} ({error})")))
        with self._sending:
            self.pipe.send_bytes(data)


class Asking:
    """`Service` for who asks; the engine runs at the other end of a pipe."""

    def __init__(self, engine: FarEngine, pipe: Connection, ended: Callable[[float | None], str]) -> None:
        """`ended` waits for the process, so long at most, kills it if it still runs then, and says how it ended."""
        self.engine, self.failure = engine, ""
        self._pipe, self._ended = pipe, ended
        self._tickets = count()
        self._counts = Counts(*[0] * 10)
        self._n_more: int | None = None                  # requests that may be sent before the next step's message
        self._retry_s = Overloaded.retry_s
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._n_new = 0                                  # of them, those that were sent and taken
        self._streams: dict[int, TokenStream] = {}
        self._n_open: dict[int, int] = {}                # by ticket: samples that aren't over
        self._is_closing = False
        self._gone = asyncio.Event()
        self._sending = threading.Lock()

    def start(self) -> None:
        """Listen, in the event loop that runs."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._readable)

    def refusal(self, n_coming: int = 0) -> str | None:
        """Why a new request wouldn't be taken after `n_coming` that are on their way, by what the last step told."""
        if self._n_more is None or n_coming + self._n_new < self._n_more:
            return None
        return "as many requests wait as can be begun in time: try again later"

    def retry_s(self) -> int:
        """Seconds after which whoever was refused may try again, by what the last step told."""
        return self._retry_s

    def counts(self) -> Counts:
        """What the engine held and had done after its last step."""
        return self._counts

    async def submit(self, request: Request) -> TokenStream:
        """Queue a request; its errors are raised here, before any token."""
        if self._is_closing:
            raise Overloaded(CLOSING)
        ticket = next(self._tickets)
        stream = TokenStream(self, ticket, 0, request.params.n)
        self._streams[ticket], self._n_open[ticket] = stream, request.params.n
        try:
            stream.seed = await self._call("submit", request, ticket=ticket)
            self._n_new += 1
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):       # the caller went away before it had the stream
                self.cancel(ticket)
            self._forget(ticket)
            raise
        return stream

    async def embed(self, ids: Sequence[int], adapter: str | None = None) -> list[float]:
        """One vector of length 1 for a text."""
        return await self._call("embed", ids, adapter)

    async def check_grammar(self, grammar: Grammar) -> None:
        """Compile a form that answers are to have, and keep it; what is wrong with it is raised."""
        await self._call("grammar", grammar)

    async def load_adapter(self, name: str, adapter: Adapter, replace: bool = False, origin: str = "") -> None:
        """Let requests name this adapter."""
        await self._call("load", name, adapter, replace, origin)

    async def unload_adapter(self, name: str) -> int:
        """Later requests don't find it; gives how many that aren't over go on with it."""
        return await self._call("unload", name)

    def cancel(self, number: int, sample: int | None = None) -> None:
        """End a request, or one of its samples, before the engine's next step."""
        if not self.failure:
            self._send("cancel", number, sample)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take no more requests, let the running ones finish, and end the process; after the time, cancel them."""
        self._is_closing = True
        self._send("end", 0)
        if not await self._ends(timeout_s):
            for ticket in self._streams:
                self.cancel(ticket)
            await self._ends(KILL_S)
        await asyncio.to_thread(self._ended, 0)

    def close(self) -> None:
        """Let the process go, whatever it does."""
        self._pipe.close()
        self._ended(KILL_S)

    async def _ends(self, timeout_s: float | None) -> bool:
        try:
            await asyncio.wait_for(self._gone.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _call(self, kind: str, *rest: Any, ticket: int | None = None) -> Any:
        if self.failure:
            raise EngineFailed(self.failure)
        number = next(self._tickets) if ticket is None else ticket
        self._calls[number] = result = asyncio.get_running_loop().create_future()
        if kind == "load":                               # long: other calls may be sent from here meanwhile
            await asyncio.to_thread(self._send, kind, number, *rest)
        else:
            self._send(kind, number, *rest)
        try:
            return await result
        finally:
            self._calls.pop(number, None)

    def _send(self, *message: Any) -> None:
        data = pickle.dumps(message, protocol=5)
        try:
            with self._sending:
                self._pipe.send_bytes(data)
        except OSError:                                  # it is gone, as the reader will see
            pass

    def _readable(self) -> None:
        try:
            message = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self._lost()
            return
        if message[0] == "failed":
            self.failure = message[1]
            return                                       # its end follows
        if message[0] == "done":
            _, ticket, value, error = message
            if ticket in self._calls:
                settle(self._calls[ticket], value, error)
            return
        _, tokens, self._counts, (self._n_more, self._retry_s), shelf = message
        self._n_new = 0
        if shelf is not None:
            self._shelve(shelf)
        for token in tokens:
            self._hand_on(token if isinstance(token, Token) else Token(*token))

    def _hand_on(self, token: Token) -> None:
        stream = self._streams.get(token.request)
        if stream is None:                               # its caller went away
            return
        stream.put(token)
        if token.finish is not None:
            self._n_open[token.request] -= 1
            if not self._n_open[token.request]:
                self._forget(token.request)

    def _forget(self, ticket: int) -> None:
        self._streams.pop(ticket, None)
        self._n_open.pop(ticket, None)

    def _shelve(self, shelf: Sequence[Loaded]) -> None:
        loaded = self.engine.adapters.loaded
        loaded.clear()
        loaded.update({one.name: one for one in shelf})

    def _lost(self) -> None:
        """The process is gone: nobody may wait for ever."""
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        if not self.failure and (not self._is_closing or self._streams):
            self.failure = f"the engine failed: its process ended {self._ended(1.0)}"
        self._n_more = None
        for result in self._calls.values():
            settle(result, None, EngineFailed(self.failure or CLOSING))
        for stream in self._streams.values():
            stream.put(None)
        self._streams.clear()
        self._gone.set()
