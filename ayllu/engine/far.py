"""An engine in other processes: the face of `Service` over replicas of one engine, any of which may die.

A request whose replica is lost begins again on another. It has a seed from the first try on, so that the second chooses
the same ids; those that the reader has are left out, and compared first. Engines with `deterministic=True` always
agree; others may choose differently where two ids are equally likely within rounding, and then the answer ends with an
error, rather than go on with the end of another text.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import torch

from ayllu.engine.constrain import NO_GRAMMARS, Grammars
from ayllu.engine.engine import EngineSettings
from ayllu.engine.request import Grammar, Request, Token
from ayllu.engine.shelf import Loaded
from ayllu.errors import EngineFailed, Overloaded, Refused, RequestError
from ayllu.log import logger
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.sample import new_seed

MOST_LOST = 4                                            # replicas per request: it may be what kills them
AGAIN_S = 0.2                                            # until the next try


class Lost(Exception):  # noqa: N818 - what happened, told between floors
    """The replica that was asked is gone, or can't be reached; another may answer."""


class Answer(Protocol):
    """What one replica gives: an empty list once the request is queued, then tokens until all samples are over.

    Besides `Lost` it raises the errors of `Service`.
    """

    async def __anext__(self) -> Sequence[Token]:
        """The tokens that are there."""

    def cancel(self) -> None:
        """Nobody reads on."""


class Replicas(Protocol):
    """Engines of which each call reaches one."""

    def answer(self, request: Request) -> Answer:
        """Ask for a text."""

    async def embed(self, ids: Sequence[int], adapter: str | None) -> list[float]:
        """One vector for a text."""


@dataclass(frozen=True)
class FarRunner:
    """Where the weights lie."""

    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class FarCache:
    """Memory for keys and values."""

    nbytes: int
    n_tokens: int


@dataclass(frozen=True)
class FarShelf:
    """The adapters that are loaded there."""

    loaded: dict[str, Loaded]
    most_bytes: int


@dataclass(frozen=True)
class FarEngine:
    """What is known of an engine in another process, or of several that are all alike."""

    config: LlamaConfig | TransformerConfig
    settings: EngineSettings
    context: int
    runner: FarRunner
    cache: FarCache
    adapters: FarShelf


class FarService:
    """`Service` for what asks; nothing runs here."""

    failure = ""                                         # a replica that fails is replaced

    def __init__(self, engine: FarEngine, replicas: Replicas, grammars: Grammars | None = None,
                 again_s: float = AGAIN_S) -> None:
        """`grammars` check what a replica will have to follow."""
        self.engine, self.replicas, self.again_s = engine, replicas, again_s
        self.grammars = grammars

    def start(self) -> None:
        """The replicas run already."""

    async def drain(self, timeout_s: float | None = None) -> None:
        """Answers are waited for where they are sent."""

    def close(self) -> None:
        """The replicas belong to who started them."""

    def refusal(self, n_coming: int = 0) -> str | None:
        """Only a replica knows."""
        return None

    def retry_s(self) -> int:
        """Only a replica knows more."""
        return Overloaded.retry_s

    async def check_grammar(self, grammar: Grammar) -> None:
        """What is wrong with a form is raised here, for the field that asked for it."""
        if self.grammars is None:
            raise RequestError(NO_GRAMMARS)
        await asyncio.to_thread(self.grammars.matcher, grammar)

    async def load_adapter(self, *_: object, **__: object) -> NoReturn:
        """Every replica would have to, also the one that takes a dead one's place."""
        raise Refused("a server with replicas changes no adapters while it runs: name them in its deployment file")

    unload_adapter = load_adapter

    async def submit(self, request: Request) -> "FarStream":
        """Queue a request; its errors are raised here, before any token."""
        if request.params.seed is None:
            request = replace(request, params=request.params.model_copy(update={"seed": new_seed()}))
        stream = FarStream(self, request)
        await stream.begin()
        return stream

    async def embed(self, ids: Sequence[int], adapter: str | None = None) -> list[float]:
        """One vector; a second replica is asked if the first is lost."""
        for _ in range(MOST_LOST):
            try:
                return await self.replicas.embed(ids, adapter)
            except Lost as error:
                logger.warning("%s; asking another one", error)
                await asyncio.sleep(self.again_s)
        raise _lost(MOST_LOST)


class FarStream(AsyncIterator[Token]):
    """The tokens of one request, whichever replicas choose them."""

    def __init__(self, service: FarService, request: Request) -> None:
        self.seed = request.params.seed or 0
        self._service, self._request = service, request
        self._answer = service.replicas.answer(request)
        self._open = set(range(request.params.n))        # samples whose finish is still to come
        self._given: dict[int, list[int | None]] = {sample: [] for sample in self._open}
        self._seen: Counter[int] = Counter()             # by sample: tokens of the present try
        self._ready: deque[Token] = deque()
        self._n_lost = 0

    async def begin(self) -> None:
        """Until a replica has queued it."""
        try:
            self._take(await self._more())
        except BaseException:
            self._answer.cancel()
            raise

    async def __anext__(self) -> Token:
        """The next token of any sample."""
        while not self._ready:
            if not self._open:
                raise StopAsyncIteration
            self._take(await self._more())
        return self._ready.popleft()

    def cancel(self, sample: int | None = None) -> None:
        """End one sample, or all. A replica goes on with a sample until all of a request are over."""
        was_open = bool(self._open)
        self._open -= self._open if sample is None else {sample}
        if was_open and not self._open:
            self._answer.cancel()

    async def _more(self) -> Sequence[Token]:
        while True:
            try:
                return await anext(self._answer)
            except (Lost, EngineFailed, Overloaded) as error:
                await self._again(error)
            except StopAsyncIteration:
                await self._again(Lost("a replica ended an answer before its end"))

    async def _again(self, error: Exception) -> None:
        if not self._open:                               # it was cancelled
            raise StopAsyncIteration
        if isinstance(error, Overloaded) and not self._n_lost:
            raise error
        if not isinstance(error, Overloaded):            # the others have a dead one's requests, too: wait for room
            self._n_lost += 1
            logger.warning("%s; its answer begins again on another one", error)
        if self._n_lost >= MOST_LOST:
            raise _lost(self._n_lost) from error
        await asyncio.sleep(self._service.again_s)
        self._seen.clear()
        self._answer = self._service.replicas.answer(self._request)

    def _take(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if token.sample not in self._open:
                continue
            given, n = self._given[token.sample], self._seen[token.sample]
            self._seen[token.sample] += 1
            if n < len(given):
                self._compare(given[n], token)
                continue
            given.append(token.id)
            self._ready.append(token)
            if token.finish is not None:
                self._open.discard(token.sample)

    def _compare(self, id: int | None, token: Token) -> None:
        if token.id != id or token.finish is not None:
            self.cancel()
            raise EngineFailed("the replica that wrote this answer was lost, and another one chooses other tokens for "
                               "it: ask again, and start the replicas with deterministic: true")


def _lost(n: int) -> EngineFailed:
    return EngineFailed(f"{n} replicas were lost one after the other while they answered this: ask again later")
