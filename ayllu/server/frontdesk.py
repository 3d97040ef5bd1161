"""The customer service behind a server: opened when it's first asked, and paced, since its key is on web pages."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ayllu.apps.support.pages import RULES, sample
from ayllu.apps.support.rules import load_rules
from ayllu.apps.support.service import Support, open_support, place_of
from ayllu.errors import AylluError
from ayllu.log import warn
from ayllu.server.pace import Pace
from ayllu.server.served import Served

LOOK_S = 10.0                                            # how often the folder is looked at


class FrontDesk:
    """The business's folder, and its service once somebody asked."""

    def __init__(self, served: Served, below: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.served, self.below, self.pace, self._clock = served, below, Pace(), clock
        self._looked, self._stamp = 0.0, frozenset[tuple[str, int, int]]()
        self._lock = threading.Lock()
        self._service: Support | None = None

    @property
    def is_sample(self) -> bool:
        """Whether a made-up shop answers."""
        return self.served.support is None

    def service(self) -> Support:
        """Opened once; pages and rules that were changed meanwhile are read again."""
        folder = self.served.support or sample()
        with self._lock:
            if self._service is None:
                self._stamp, self._looked = _stamp(folder), self._clock()
                self._service = open_support(folder, place_of(folder, self.below))
            elif self._clock() - self._looked > LOOK_S:
                self._looked = self._clock()
                self._service = self._renewed(self._service, folder)
            return self._service

    def _renewed(self, service: Support, folder: Path) -> Support:
        stamp = _stamp(folder)
        if stamp == self._stamp:
            return service
        self._stamp = stamp
        try:
            return service.renewed(folder, load_rules(folder / RULES))
        except AylluError as error:                      # customers are answered from what was there before
            warn(f"customer service goes on with its old pages and rules: {error}")
            return service

    def close(self) -> None:
        """Close its file."""
        with self._lock:
            if self._service is not None:
                self._service.close()
                self._service = None


def _stamp(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Other after every change of a file."""
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return frozenset((str(path), status.st_size, status.st_mtime_ns) for path, status in found)
