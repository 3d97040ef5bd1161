"""A run's folder: held by one process at a time, and with all that is needed to repeat the run."""

import fcntl
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from ayllu import __version__, dist
from ayllu.config import Settings
from ayllu.errors import ConfigError
from ayllu.files import write_json
from ayllu.train.checkpoints import clean

Resume = Literal["auto"] | bool                          # True: there must be nothing damaged; auto: go on in any case
PATIENCE_S = 5.0                                         # a killed process's children may hold the lock a moment longer


@contextmanager
def claimed(run: Path, resume: Resume) -> Iterator[None]:
    """Hold the run's folder while inside; what a killed process was writing is removed.

    The system lets go of the lock when the process ends, however it ends.
    """
    if not dist.is_main():                               # the first rank holds it for all
        yield
        return
    if (run / "config.json").exists() and not resume:
        raise ConfigError(f"{run} holds a run already: add --resume to go on with it, or set out=ANOTHER_FOLDER")
    run.mkdir(parents=True, exist_ok=True)
    with open(run / ".lock", "w", encoding="utf-8") as lock:
        _take(lock, run)
        clean(run)
        yield


def _take(lock: Any, run: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise ConfigError(f"another process is training in {run}: wait for it, stop it, or set "
                                  "out=ANOTHER_FOLDER") from error
            time.sleep(0.05)


def describe(run: Path, config: Settings, recipe_folder: Path, device: torch.device) -> None:
    """Write config.json, which `ayllu pretrain` takes as a recipe, and environment.json."""
    write_json(run / "config.json", {**config.model_dump(mode="json"), "folder": str(recipe_folder)})
    now, path = environment(device), run / "environment.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    starts = [*earlier.get("starts", []), now["started"]]
    write_json(path, {**now, "starts": starts})


def environment(device: torch.device) -> dict[str, Any]:
    """What a number in a report depends on."""
    return {"ayllu": __version__, "torch": torch.__version__, "python": platform.python_version(),
            "platform": platform.platform(), "device": str(device), "threads": torch.get_num_threads(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
