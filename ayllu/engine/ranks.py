"""One engine on several ranks that share each matrix (tensor parallelism), for models that one device can't hold.

Each rank has its share of every matrix, and the keys and values of its own heads. All of them do the same steps: the
first takes the requests and sends, before each step, what was asked since the last one; the engine is deterministic, so
the others schedule, compute and choose alike. That they do is compared at each step. The first alone speaks to anybody.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn

from torch.distributed import ProcessGroup

from ayllu import dist
from ayllu.engine.engine import Engine
from ayllu.engine.request import Request, Token
from ayllu.errors import EngineFailed, Refused
from ayllu.model.sample import new_seed

IDLE = timedelta(days=3650)                              # the others wait for the first, however long nobody asks

LOST = ("a rank was lost, and without its share of the model no other can go on: the server ends. Torchrun's message "
        "says which it was; start all of them again")


@dataclass(frozen=True)
class Orders:
    """What the first rank asks of the others before a step; `is_last`: there will be none."""

    submitted: tuple[tuple[int, Request], ...] = ()      # with the numbers that the first rank gave
    cancelled: tuple[tuple[int, int | None], ...] = ()   # after what was submitted; a number, a sample or all
    sum: int = 0                                         # of the tokens of the step before
    is_last: bool = False


class LedEngine:
    """The first rank's face of `Engine`: what it does, all ranks do with the next step."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.group = engine, dist.group_apart(IDLE)
        self.settings, self.config, self.context = engine.settings, engine.config, engine.context
        self.runner, self.cache, self.scheduler = engine.runner, engine.cache, engine.scheduler
        self.adapters, self.grammars = engine.adapters, engine.grammars
        self.seed, self.check_grammar = engine.seed, engine.check_grammar
        self._submitted: list[tuple[int, Request]] = []
        self._cancelled: list[tuple[int, int | None]] = []
        self._sum = 0

    @property
    def is_idle(self) -> bool:
        """As the engine's."""
        return self.engine.is_idle

    def submit(self, request: Request) -> int:
        """As the engine's; all ranks draw from the same seed."""
        if request.params.seed is None:
            request = replace(request, params=request.params.model_copy(update={"seed": new_seed()}))
        number = self.engine.submit(request)
        self._submitted.append((number, request))
        return number

    def cancel(self, number: int, sample: int | None = None) -> None:
        """As the engine's."""
        self.engine.cancel(number, sample)
        self._cancelled.append((number, sample))

    def step(self) -> list[Token]:
        """As the engine's, on all ranks."""
        orders = Orders(tuple(self._submitted), tuple(self._cancelled), self._sum)
        self._submitted, self._cancelled = [], []
        _send(orders, self.group)
        tokens = _stepped(self.engine)
        self._sum = _sum(tokens)
        return tokens

    def close(self) -> None:
        """Let the other ranks go."""
        _send(Orders(is_last=True), self.group)

    def load_adapter(self, *_: object, **__: object) -> NoReturn:
        """The ranks hold shares of matrices, adapters are whole."""
        raise Refused("a server of several ranks takes no adapters: merge them into the model (ayllu merge)")

    unload_adapter = load_adapter


def follow(engine: Engine) -> None:
    """Every other rank: do what the first one does, until it ends."""
    group, last = dist.group_apart(IDLE), 0
    while True:
        orders = _send(Orders(), group)
        if orders.is_last:
            return
        if orders.sum != last:
            raise EngineFailed(f"rank {dist.rank()} has chosen other tokens than the first rank: their devices or "
                               "versions of torch may differ; start all ranks from one environment")
        _obey(engine, orders)
        last = _sum(_stepped(engine))


def _obey(engine: Engine, orders: Orders) -> None:
    for number, request in orders.submitted:
        if engine.submit(request) != number:
            raise EngineFailed(f"rank {dist.rank()} counts other requests than the first rank")
    for number, sample in orders.cancelled:
        engine.cancel(number, sample)


def _stepped(engine: Engine) -> list[Token]:
    try:
        return engine.step()
    except RuntimeError as error:                        # what gloo and NCCL raise when a connection breaks
        raise EngineFailed(LOST) from error


def _sum(tokens: Sequence[Token]) -> int:
    return zlib.crc32(repr([(t.request, t.sample, t.id, t.finish) for t in tokens]).encode())


def _send(orders: Orders, group: ProcessGroup | None) -> Orders:
    """The first rank's orders, over the CPU, beside what the steps send."""
    try:
        return dist.from_first(orders, group)
    except RuntimeError as error:
        raise EngineFailed(LOST) from error
