"""How far a long reading of files is: a bar on a terminal, and a line every half minute where nobody looks at one."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ayllu.data.folders import size_of
from ayllu.data.packed import Moved
from ayllu.log import say

EVERY_S = 30.0                                           # between lines
T = TypeVar("T")


class Bar:
    """Counts bytes of files on the disk, as they are read, and documents."""

    def __init__(self, what: str, total: int, progress: Progress) -> None:
        self.n_bytes = self.n_documents = 0
        self._what, self._total, self._progress = what, total, progress
        self._task = progress.add_task(what, total=total, documents="")
        self._start = self._said = time.monotonic()
        self._said_bytes = 0

    def move(self, n_bytes: int) -> None:
        """So many bytes more are done."""
        self.n_bytes += n_bytes
        if not self._progress.disable:
            self._progress.update(self._task, advance=n_bytes, documents=self._documents())
        elif (now := time.monotonic()) - self._said >= EVERY_S:
            say(self._line((self.n_bytes - self._said_bytes) / (now - self._said)))
            self._said, self._said_bytes = now, self.n_bytes

    @contextmanager
    def watch(self, file: Path) -> Iterator[Moved]:
        """What `records` tells of a file; at the file's end, all of it is done, also what wasn't read."""
        left = size_of(file)

        def moved(n_bytes: int) -> None:
            nonlocal left
            step = min(n_bytes, left)
            left -= step
            self.move(step)

        yield moved
        self.move(left)

    def count(self, rows: Iterable[T]) -> Iterator[T]:
        """The rows as they are, counted."""
        for row in rows:
            self.n_documents += 1
            yield row

    def _documents(self) -> str:
        rate = self.n_documents / max(time.monotonic() - self._start, 1e-9)
        return f"{self.n_documents:,} documents, {rate:,.0f}/s" if self.n_documents else ""

    def _line(self, rate: float) -> str:
        left = timedelta(seconds=round((self._total - self.n_bytes) / rate)) if rate else "unknown time"
        return (f"{self._what}: {self.n_bytes / max(self._total, 1):.0%} of {self._total / 1e6:,.1f} MB, "
                f"{rate / 1e6:,.2f} MB/s, {self._documents()}; {left} left")


@contextmanager
def progress(what: str, files: Iterable[Path]) -> Iterator[Bar]:
    """A bar over files; rate and time left are those of the last half minute."""
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                  TextColumn("{task.fields[documents]}"), TimeRemainingColumn(), console=console, transient=True,
                  speed_estimate_period=EVERY_S, disable=not console.is_terminal) as shown:
        yield Bar(what, sum(map(size_of, files)), shown)
