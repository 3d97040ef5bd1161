"""A model loaded in a process of its own, and `Served` around it here: what `ayllu serve` does (engine/apart.py: why).

    served = serve_apart("ayllu-mini", {"dtype": "bfloat16"}, aliases=frozenset({"mini"}))

The process ends with this one, however that ends: it sees the pipe close.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from ayllu import dist
from ayllu.engine.apart import Asking, Desk
from ayllu.engine.engine import Engine
from ayllu.errors import AylluError, EngineFailed
from ayllu.log import setup
from ayllu.server.facts import Facts, facts_of
from ayllu.server.served import Served
from ayllu.server.start import load_served


def load(model: str, engine: Mapping[str, Any], here: Mapping[str, Any]) -> Served:
    """`serve_apart` where that can be; otherwise (ranks that share a model, Windows) all in this process."""
    if dist.world_size() > 1 or os.name != "posix":
        return load_served(model, **engine, **here)
    return serve_apart(model, engine, **{**here, "aliases": frozenset(here["aliases"])})


def serve_apart(model: str, load: Mapping[str, Any], **served: Any) -> Served:
    """`load`: what start.load_served takes about the engine; `served`: fields of `Served` that belong here."""
    here, there = socket.socketpair()
    with there:
        process = subprocess.Popen([sys.executable, "-m", "ayllu.server.apart", str(there.fileno())],
                                   pass_fds=(there.fileno(),), stdin=subprocess.DEVNULL,
                                   stdout=2)             # messages only: results are the asking one's
    pipe = Connection(here.detach())
    try:
        pipe.send_bytes(pickle.dumps((model, dict(load))))
        found = pickle.loads(pipe.recv_bytes())
    except (EOFError, OSError):
        raise EngineFailed(f"the engine's process ended {_ended(process, 1)} while it loaded {model}") from None
    except BaseException:
        process.kill()
        raise
    if isinstance(found, AylluError):
        process.wait()
        raise found
    facts: Facts = found
    return Served(**facts.served, **served, service=Asking(facts.engine, pipe, lambda wait_s: _ended(process, wait_s)))


def _ended(process: "subprocess.Popen[bytes]", wait_s: float | None) -> str:
    """How it ended; it is killed if it doesn't in time."""
    try:
        code = process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code < 0:
        name = signal.Signals(-code).name
        return f"by {name}" + (" (was there too little memory?)" if name == "SIGKILL" else "")
    return f"with code {code}"


def main() -> None:
    """The engine's process. Signals are for the one that asks, which lets running answers end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    setup()
    pipe = Connection(int(sys.argv[1]))
    model, load = pickle.loads(pipe.recv_bytes())
    max_wait_s = load.pop("max_wait_s", None)
    try:
        served = load_served(model, **load)
    except AylluError as error:
        pipe.send_bytes(pickle.dumps(error))
        return
    engine = served.service.engine
    assert isinstance(engine, Engine)
    pipe.send_bytes(pickle.dumps(facts_of(served)))
    Desk(engine, pipe, max_wait_s, left=lambda: os._exit(0)).run()


if __name__ == "__main__":
    main()
