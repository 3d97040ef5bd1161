"""A real server on a real socket, in a thread of the test's process."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ayllu.apps.speaker import Answer
from ayllu.engine.engine import EngineSettings
from ayllu.server.gate import Door
from ayllu.server.limits import Limits
from ayllu.server.served import Served
from ayllu.server.start import Listener, load_served


class Live:
    """Its address, and the model behind it."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self.served = listener, listener.served
        self.url = listener.url
        self.port = listener.sockets[0].getsockname()[1]

    def pages_free(self) -> int:
        return self.served.service.engine.scheduler.pool.n_free

    def wait_until(self, check: Any, timeout_s: float) -> float:
        """Seconds until `check` held."""
        begun = time.perf_counter()
        while not check():
            if time.perf_counter() - begun > timeout_s:
                raise AssertionError(f"not within {timeout_s} s")
            time.sleep(0.01)
        return time.perf_counter() - begun


@contextlib.contextmanager
def serving(model: Path, *, door: Door | None = None, limits: Limits | None = None, slow_s: float = 0,
            engine: dict[str, Any] | None = None, **options: Any) -> Iterator[Live]:
    """`slow_s` makes each step of the engine last longer, so that there is time to do things to it."""
    settings = EngineSettings(**{"cache_mib": 2, "max_rows": 16, **(engine or {})})
    served: Served = load_served(str(model), name="tiny", engine=settings, limits=limits, **options)
    if slow_s:
        quick = served.service.engine.step

        def step() -> Any:
            if not served.service.engine.is_idle:
                time.sleep(slow_s)
            return quick()

        served.service.engine.step = step
    with answering(served, door) as live:
        yield live


@contextlib.contextmanager
def answering(served: Served, door: Door | None = None) -> Iterator[Live]:
    """A server around a model."""
    listener = Listener(served, door or Door(), 0).bind()
    server = uvicorn.Server(listener._config())
    thread = threading.Thread(target=server.run, kwargs={"sockets": listener.sockets}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise AssertionError("the server did not start")
        time.sleep(0.01)
    try:
        yield Live(listener)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def hearing(own: Any, words: str) -> Any:
    """In place of ServedSpeaker's `__init__`, which is `own`: one that understands every sound as these words."""
    def begin(self: Any, *given: Any, **named: Any) -> None:
        own(self, *given, **named)
        self.hears, self.ear_s = True, 5.0
        self.answers = lambda prompts, **options: [Answer(words, "stop", 1, 1) for _ in prompts]
    return begin
