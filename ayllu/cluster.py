"""A Ray cluster that is there already, or one on this machine for one run; what isn't there is said in bounded time."""

import logging
import os
import socket
import subprocess
import sys
from typing import Any

from ayllu.errors import ConfigError

HERE = "local"                                           # an address: start Ray on this machine, for this run only
CONNECT_S = 10.0                                         # for a machine to take a connection
ANSWER_S = 60.0                                          # for a cluster to take a driver; Ray itself may wait for ever
TRY = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def silence() -> None:
    """Before Ray is imported: nothing is reported to anybody."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def connect(ray: Any, address: str, n_cpus: int) -> None:
    """`ray.init`; `n_cpus` are those of a cluster that is started here."""
    if address != HERE:
        probe(address)
    start = {"address": address} | ({"num_cpus": n_cpus, "include_dashboard": False} if address == HERE else {})
    try:
        ray.init(**start, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, (str(error).splitlines() or [type(error).__name__])[0]) from error


def probe(address: str, answer_s: float = ANSWER_S) -> None:
    """Whether a cluster answers, tried in a process of its own: `ray.init` has no time limit and can't be stopped."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():      # said at once where nothing listens
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            raise _no_cluster(address, str(error)) from error
    try:
        tried = subprocess.run([sys.executable, "-c", TRY, address], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=answer_s)
    except subprocess.TimeoutExpired:
        raise _no_cluster(address, f"no answer within {answer_s:g} s") from None
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        raise _no_cluster(address, said[-1] if said else f"the attempt ended with {tried.returncode}")


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(f"no Ray cluster answers at {address!r} ({reason}): start one with `ray start --head` (where it "
                       f"asks for a token, set RAY_AUTH_MODE=token here, too), or give --ray {HERE}")
