"""Files prepared in parallel by processes of their own: a file that hangs, crashes or eats memory costs only itself."""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayllu.apps.documents.document import Unreadable
from ayllu.apps.index.prepare import Ask, Prepared, as_prepared

GRACE_S = 20.0                                           # past the reader's own limit on time: to start, cut and hash


def prepare_all(asks: Sequence[Ask], workers: int | None = None) -> Iterator[tuple[Ask, Prepared | Unreadable]]:
    """In the order of the asks. At most a few results wait at a time, whatever the number of files."""
    n = min(workers or min(os.cpu_count() or 1, 8), max(len(asks), 1))
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    staff = [_Worker() for _ in range(n)]
    for worker in staff:
        idle.put(worker)
    pool = ThreadPoolExecutor(n, thread_name_prefix="documents")
    todo, waiting = iter(asks), deque[tuple[Ask, Future[Prepared | Unreadable]]]()
    try:
        while True:
            while len(waiting) < 2 * n and (ask := next(todo, None)) is not None:
                waiting.append((ask, pool.submit(_one, idle, ask)))
            if not waiting:
                return
            ask, future = waiting.popleft()
            yield ask, future.result()
    finally:                                             # also on Ctrl-C, and where the caller stops listening
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in staff:
            worker.end()
        pool.shutdown(wait=True)


def _one(idle: "queue.SimpleQueue[_Worker]", ask: Ask) -> Prepared | Unreadable:
    worker = idle.get()
    try:
        return worker.ask(ask)
    finally:
        idle.put(worker)


class _Worker:
    """A process that is started when first asked, and anew after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def ask(self, ask: Ask) -> Prepared | Unreadable:
        """Raises nothing of the file's own."""
        seconds = float(ask.limits.get("seconds", 120.0))
        try:
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(ask)).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds + GRACE_S)
        except OSError:
            line = b""
        if line is None:
            self.end()
            self._is_over = False
            return Unreadable(f"reading took more than {seconds:.0f} s: cut it into smaller documents")
        if not line.endswith(b"\n"):
            was_over = self._is_over
            self.end()
            self._is_over = was_over
            return Unreadable("stopped" if was_over else
                              "reading it crashed, or took too much memory: it may be damaged")
        said: dict[str, Any] = json.loads(line)
        return as_prepared(said["prepared"]) if "prepared" in said else Unreadable(said["unreadable"])

    def end(self) -> None:
        """End the process; who waits for its answer gets none."""
        self._is_over = True
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):              # what was still to be written has nobody to read it
                        stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_over:
                raise OSError("over")
            if self._process is None:
                import ayllu
                here = str(Path(ayllu.__file__).parents[1])
                path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
                env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
                self._process = subprocess.Popen([sys.executable, "-m", "ayllu.apps.index.prepare"], env=env, bufsize=0,
                                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next line; without its line break where the process ended, None where the time did."""
        assert process.stdout is not None
        end, parts = time.monotonic() + seconds, []
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return None
            if select.select([process.stdout], [], [], left)[0]:
                piece = process.stdout.read(2**20)
                parts.append(piece)
                if not piece or piece.endswith(b"\n"):   # one answer to one ask: nothing follows the line break
                    return b"".join(parts)
