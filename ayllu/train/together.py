"""What one rank does for all: checking and finishing a checkpoint's folder, with one outcome on every rank."""

from collections.abc import Callable
from pathlib import Path

from torch.distributed import ProcessGroup

from ayllu import dist
from ayllu.files import atomic_folder


def write_together(folder: Path, write: Callable[[Path], None], finish: Callable[[Path], None],
                   publish: Callable[[], None], group: ProcessGroup | None = None) -> None:
    """All ranks `write` into one temporary folder; the first finishes it, moves it into its place and publishes it.

    `write` must raise on all ranks or on none, as torch's distributed checkpoint does. What goes wrong on the first
    is raised on the others as an OSError.
    """
    if dist.is_main():
        _lead(folder, write, finish, publish, group)
        return
    name = dist.from_first("", group)
    try:
        if name:
            write(Path(name))
    finally:
        failure = dist.from_first("", group)
    if failure:
        raise OSError(failure)


def _lead(folder: Path, write: Callable[[Path], None], finish: Callable[[Path], None], publish: Callable[[], None],
          group: ProcessGroup | None) -> None:
    failure, is_known = "the first rank failed", False
    try:
        with atomic_folder(folder) as temporary:
            is_known = True
            dist.from_first(str(temporary), group)
            write(temporary)
            finish(temporary)
        publish()
        failure = ""
    except Exception as error:
        failure = str(error) or type(error).__name__
        raise
    finally:
        if not is_known:
            dist.from_first("", group)
        dist.from_first(failure, group)


def first_checks(check: Callable[[], object]) -> None:
    """Run a check on the first rank alone; what it raises is raised on all."""
    error: Exception | None = None
    if dist.is_main():
        try:
            check()
        except Exception as found:
            error = found
    error = dist.from_first(error)
    if error is not None:
        raise error
