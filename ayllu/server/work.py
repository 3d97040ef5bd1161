"""The work of jobs: threads that claim them from the queue and run them to the end.

When the server ends, a job that is under way goes back to the queue with what it last saved to resume from, and the
next server goes on with it.
"""

import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ayllu.apps.speaker import Speaker
from ayllu.errors import AylluError, EngineFailed, NotFound
from ayllu.jobs import Claim, work_once
from ayllu.log import logger
from ayllu.principal import Principal
from ayllu.server.served import Served
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.workspace import Workspace

N_WORKERS = 2                                            # so that a long job doesn't hold up a short one
LOOK_S = 2.0                                             # between two looks at the queue


class Stopping(BaseException):
    """The server ends: not an error, so that what catches errors lets it through."""


@dataclass(frozen=True)
class Work:
    """One job as its kind sees it: what to do, for whom, and with what."""

    claim: Claim
    served: Served
    workspace: Workspace
    is_stopping: threading.Event

    @property
    def payload(self) -> dict[str, Any]:
        """What was asked for, checked by the kind's own schema."""
        return self.claim.job.payload["payload"]

    @property
    def resume(self) -> Any:
        """What `beat` saved last, before the server was stopped; None at the beginning."""
        return self.claim.job.resume

    @property
    def principal(self) -> Principal:
        """Who asked."""
        return Principal(self.claim.job.tenant, self.claim.job.owner, frozenset({"jobs", "generate"}))

    @cached_property
    def speaker(self) -> Speaker:
        """The served model, behind what people wait for."""
        return ServedSpeaker(self.served, self.principal, is_job=True)

    @property
    def files(self) -> "WorkFiles":
        """Uploads to read, and where results go."""
        return WorkFiles(self)

    def beat(self, progress: float | None = None, resume: Any = None) -> None:
        """Call it where the work can stop: it notes progress (0 to 1) and, as a JSON value, what a later run needs to
        go on from here. It raises where the job was cancelled or the server ends."""
        self.claim.beat(progress, resume)
        if self.is_stopping.is_set():
            raise Stopping


@dataclass(frozen=True)
class WorkFiles:
    """The files of one job's owner."""

    work: Work

    def path(self, file_id: str) -> Path:
        """An upload's bytes; not to be changed."""
        files = self.work.workspace.files
        return files.path(files.get(self.work.principal, file_id))

    def name(self, file_id: str) -> str:
        """What its owner called it."""
        return self.work.workspace.files.get(self.work.principal, file_id).name

    def told(self, message: str) -> str:
        """A message for the owner: uploads by their names, and no path of this machine."""
        for file_id in set(re.findall(r"\b[0-9a-f]{16}\b", message)):
            with suppress(NotFound):
                message = message.replace(str(self.path(file_id)), self.name(file_id))
        return re.sub(re.escape(str(self.work.workspace.folder)) + r"/(?:[^\s/]+/)*", "", message)

    def save(self, name: str, source: bytes | Path) -> dict[str, Any]:
        """Keep a result, which is deleted with the job; gives {"id", "name", "bytes"} for the job's own result."""
        files = self.work.workspace.files
        part = files.part()
        try:
            if isinstance(source, Path):
                shutil.copyfile(source, part)
            else:
                part.write_bytes(source)
            kept = files.keep(self.work.principal, name, part, self.work.claim.job.id)
        finally:
            part.unlink(missing_ok=True)
        return {"id": kept.id, "name": kept.name, "bytes": kept.bytes}


class Workers:
    """The threads of one server."""

    def __init__(self, served: Served, workspace: Workspace, kinds: dict[str, Callable[[Work], Any]]) -> None:
        self.served, self.workspace, self.kinds = served, workspace, kinds
        self.is_stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(f"server-{i}",), daemon=True, name=f"ayllu-work-{i}")
                        for i in range(N_WORKERS)]

    def start(self) -> None:
        """Begin with what waits."""
        for thread in self.threads:
            thread.start()

    def tell_to_stop(self) -> None:
        """From now on each job ends at its next sign of life."""
        self.is_stopping.set()
        self.workspace.arrived.set()

    def join(self, patience_s: float) -> None:
        """Wait for them; one that doesn't hear is left to end with the process, and its job to the next server."""
        for thread in self.threads:
            thread.join(patience_s)

    def _run(self, worker: str) -> None:
        while not self.is_stopping.is_set():
            self.workspace.arrived.wait(LOOK_S)
            self.workspace.arrived.clear()
            try:
                while not self.is_stopping.is_set() and work_once(
                        self.workspace.jobs, worker, {kind: self._runs(kind) for kind in self.kinds}):
                    pass
            except Stopping:
                return
            except Exception as error:                   # a full disk, say: the thread must outlive it
                logger.error("the workers of jobs: %s: %s", type(error).__name__, error)

    def _runs(self, kind: str) -> Callable[[Claim], Any]:
        def run(claim: Claim) -> Any:
            work = Work(claim, self.served, self.workspace, self.is_stopping)
            try:
                return self.kinds[kind](work)
            except Exception as error:
                if self.is_stopping.is_set():            # by the end of the server, the engine's say
                    raise Stopping from error
                if isinstance(error, AylluError):
                    error.args = (work.files.told(str(error)),)
                    raise
                logger.error("the job %s (%s) failed", claim.job.id, kind, exc_info=error)
                raise EngineFailed("the server failed at this job; its log says where") from error
        return run
