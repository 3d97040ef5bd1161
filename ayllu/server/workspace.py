"""What a server keeps for the people who use it, in one folder: jobs.sqlite, files/, and what applications add.

One server works in a folder at a time: it holds a lock that ends with its process, however that ends. So whatever a
job was doing when a server starts, nobody does it any more, and the work goes on from where it was saved at once.
"""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ayllu.errors import ConfigError
from ayllu.jobs import Jobs
from ayllu.server.filestore import FileStore

KEPT_BYTES = 4 * 2**30                                   # files of one person


class Closes(Protocol):
    """What can be closed."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closes)


class Workspace:
    """The folder, held."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self.folder = folder
        self._opening, self._parts = threading.Lock(), dict[str, Any]()
        self.arrived = threading.Event()                 # a job was queued: workers need not wait for their next look
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _hold(folder)
        except OSError as error:
            raise ConfigError(f"{folder} can't hold jobs and files ({error.strerror}): name another folder with "
                              "--data FOLDER") from error
        self.jobs = Jobs(folder / "jobs.sqlite")
        self.files = FileStore(folder / "files", kept_bytes)
        self.jobs.recover()

    def opened(self, name: str, open_: Callable[[Path], C]) -> C:
        """What an application keeps here, in NAME.sqlite: opened once, and closed with the workspace."""
        with self._opening:
            if name not in self._parts:
                self._parts[name] = open_(self.folder / f"{name}.sqlite")
            return self._parts[name]

    def close(self) -> None:
        """Let another server have it."""
        for part in self._parts.values():
            part.close()
        self.jobs.close()
        self.files.close()
        self._lock.close()


def _hold(folder: Path) -> sqlite3.Connection:
    """SQLite's own lock on a file of no content: it works wherever SQLite does."""
    lock = sqlite3.connect(folder / "lock.sqlite", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise ConfigError(f"another ayllu serve works in {folder}: end it, or name another folder with --data "
                          "FOLDER") from error
    return lock
