"""How many processes share the tests (pytest-xdist): one per core, each with one thread, and so all that they start."""

import os
from typing import Any

import pytest

MOST = 8                                                 # each has models, a server and a browser of its own


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The answer to `-n auto`; files that are named run in this process, where they begin at once."""
    if all(".py" in name for name in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if cores > 1 else 0


def share_cores(config: pytest.Config) -> None:
    """Before the workers start: torch's own threads, in each of them, would only fight for the same cores."""
    options: Any = config.option
    if options.numprocesses:
        os.environ.update(OMP_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1")
        os.environ.setdefault("PYTHONHASHSEED", "0")     # the workers must name and order all tests alike
