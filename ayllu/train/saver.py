"""Checkpoints written in the background: the state is copied, training goes on, and a failure is told at once."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException

from ayllu import dist
from ayllu.errors import CheckpointError
from ayllu.log import warn
from ayllu.train.checkpoints import best_folder, latest, save, save_best, step_folder
from ayllu.train.state import TrainState


class Saver:
    """Writes a run's checkpoints, one at a time; used as a context manager around training.

    The next save, the next evaluation and leaving wait for the one that is being written. `background=False` writes at
    once and without a copy; the files are the same. Several ranks write together, each its own shards; in the
    background they speak in a group apart, so that their messages don't meet those of training.
    """

    def __init__(self, run: Path, keep: int, background: bool = True) -> None:
        self.run, self.keep, self.background = run, keep, background
        self._group = dist.group_apart() if background else None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):         # a second Ctrl-C: what is half written is never looked at
            return
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            warn(str(failure))                           # the first error is raised, the second one isn't lost

    def save(self, state: TrainState) -> Path:
        """Begin to write a checkpoint of the state as it is now; returns the folder that it will have."""
        folder = step_folder(self.run, state.step)
        self._start(state, folder, partial(save, run=self.run, keep=self.keep, group=self._group))
        return folder

    def save_best(self, state: TrainState) -> None:
        """Begin to write the state as the best one."""
        self._start(state, best_folder(self.run, state.step), partial(save_best, run=self.run, group=self._group))

    @property
    def failed(self) -> bool:
        """Whether something went wrong in the background, which `wait` will raise; known before it is waited for."""
        return self._error is not None

    def wait(self) -> None:
        """Return when everything is on the disk; CheckpointError where that failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _start(self, state: TrainState, folder: Path, write: Callable[[dict[str, Any]], None]) -> None:
        self.wait()
        parts = state.state_dict()
        if not self.background:
            self._write(parts, folder, write)
            return self.wait()
        self._thread = threading.Thread(target=self._write, args=(copied(parts), folder, write), daemon=True)
        self._thread.start()
        return None

    def _write(self, parts: dict[str, Any], folder: Path, write: Callable[[dict[str, Any]], None]) -> None:
        try:
            write(parts)
        except (OSError, CheckpointException) as error:
            before = latest(self.run)
            intact = (f"{before} is untouched, and --resume auto goes on from it" if before
                      else "no checkpoint had been written before")
            self._error = CheckpointError(f"{folder} could not be written: {_reason(error)}. {intact}; if the disk is "
                                          "full, make room first")
            self._error.__cause__ = error
        except Exception as error:                       # raised in the thread that waits, like any other
            self._error = error


def copied(value: Any) -> Any:
    """Tensors in nested dicts and lists copied into the CPU's memory, where training can't change them any more."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, list) else value


def _reason(error: BaseException) -> str:
    """In one line; torch's distributed checkpoint wraps what went wrong on each rank."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error) or type(error).__name__).splitlines()[0]
