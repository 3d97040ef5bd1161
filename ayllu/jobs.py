"""Long work as rows in SQLite: submitted by one process, done by another, surviving a crash of either.

    queued ──claim──> running ──finish──> done
      │  ^               ├────fail──────> failed
      │  └─silent worker─┤
      └────cancel────────┴──────────────> cancelled

A worker holds a claim and gives signs of life. One that has been silent for `stale_s` is taken for dead: its job goes
back to the queue with what it last saved to resume from, or fails once `max_attempts` claims have been used. A claim
carries a random lease, so a worker that wakes up late can't overwrite its successor's work.

All content (payload, resume, result, error) passes through one codec, which the vault can take over to encrypt it;
states, names and times stay readable. Times are seconds since 1970.
"""

import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ayllu.database import Database
from ayllu.errors import ClaimLost, ConfigError, DataError, JobCancelled, RequestError
from ayllu.principal import Principal

State = Literal["queued", "running", "done", "failed", "cancelled"]

MIGRATIONS = (                                           # append, never edit one
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
        payload BLOB NOT NULL, resume BLOB, result BLOB, error BLOB,
        progress REAL NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
        attempts INTEGER NOT NULL DEFAULT 0,
        max_attempts INTEGER NOT NULL CHECK (max_attempts > 0),
        cancel_asked INTEGER NOT NULL DEFAULT 0,
        worker TEXT, lease TEXT,
        created_s REAL NOT NULL, started_s REAL, heartbeat_s REAL, finished_s REAL,
        CHECK ((state = 'running') = (lease IS NOT NULL))
    );
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_by_owner ON jobs (tenant, owner, number);
    """,
)


class Codec(Protocol):
    """Bytes as they are kept. `about` names the row and column, so that an encrypting codec can bind them to it."""

    def encode(self, plain: bytes, about: str) -> bytes: ...
    def decode(self, kept: bytes, about: str) -> bytes: ...


class Plain:
    """Content kept as it is (the file itself is readable by its owner only)."""

    def encode(self, plain: bytes, about: str) -> bytes:
        return plain

    def decode(self, kept: bytes, about: str) -> bytes:
        return kept


@dataclass(frozen=True)
class Job:
    """One row as it was when read; `payload`, `resume` and `result` are JSON values."""

    id: str
    tenant: str
    owner: str
    kind: str
    state: State
    payload: Any
    resume: Any
    result: Any
    error: str | None
    progress: float                                      # 0 to 1
    attempts: int
    max_attempts: int
    cancel_asked: bool
    worker: str | None
    created_s: float
    started_s: float | None
    heartbeat_s: float | None
    finished_s: float | None


@dataclass(frozen=True)
class Claim:
    """A worker's hold on one job."""

    jobs: "Jobs"
    job: Job
    lease: str

    def beat(self, progress: float | None = None, resume: Any = None) -> None:
        """A sign of life, with how far the work is (0 to 1) and what a successor needs to go on from here."""
        self.jobs.beat(self, progress, resume)


class Jobs:
    """The queue in one SQLite file, shared by any number of processes and threads."""

    def __init__(self, path: str | Path, codec: Codec | None = None, stale_s: float = 60.0,
                 clock: Callable[[], float] = time.time) -> None:
        self.path, self.codec, self.stale_s, self.clock = Path(path), codec or Plain(), stale_s, clock
        self._db = Database(path, MIGRATIONS, "the jobs file")

    def close(self) -> None:
        """Close the file; the rows stay."""
        self._db.close()

    # What a caller does: everything is limited to the principal's own jobs.

    def submit(self, principal: Principal, kind: str, payload: Any = None, max_attempts: int = 3) -> str:
        """Queue work of some kind with a JSON payload; returns the job's id."""
        principal.require("jobs")
        if max_attempts < 1:
            raise ConfigError(f"max_attempts={max_attempts} must be at least 1")
        number = secrets.token_hex(8)
        with self._db.write() as db:
            db.execute("INSERT INTO jobs (id, tenant, owner, kind, state, payload, max_attempts, created_s) "
                       "VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)",
                       (number, principal.tenant, principal.owner, kind,
                        self._encode(payload, number, "payload"), max_attempts, self.clock()))
        return number

    def get(self, principal: Principal, job_id: str) -> Job:
        """One of the principal's jobs; somebody else's looks exactly like one that doesn't exist."""
        return self._job(self._db.owned("jobs", job_id, principal))

    def jobs_of(self, principal: Principal, state: State | None = None, limit: int = 100,
                kind: str | None = None) -> list[Job]:
        """The principal's jobs, newest first."""
        principal.require("jobs")
        rows = self._db.read("SELECT * FROM jobs WHERE tenant = ? AND owner = ? AND coalesce(state = ?, 1) "
                             "AND coalesce(kind = ?, 1) ORDER BY number DESC LIMIT ?",
                             (principal.tenant, principal.owner, state, kind, limit))
        return [self._job(row) for row in rows]

    def cancel(self, principal: Principal, job_id: str) -> Job:
        """Cancel: at once while queued, at the worker's next sign of life while running; a finished job stays."""
        self.get(principal, job_id)
        with self._db.write() as db:
            db.execute("UPDATE jobs SET state = 'cancelled', finished_s = ? WHERE id = ? AND state = 'queued'",
                       (self.clock(), job_id))
            db.execute("UPDATE jobs SET cancel_asked = 1 WHERE id = ? AND state = 'running'", (job_id,))
        return self.get(principal, job_id)

    def delete(self, principal: Principal, job_id: str) -> None:
        """Remove a finished job with all its content."""
        job = self.get(principal, job_id)
        with self._db.write() as db:
            if not db.execute("DELETE FROM jobs WHERE id = ? AND state NOT IN ('queued', 'running')",
                              (job_id,)).rowcount:
                raise RequestError(f"job {job_id} is {job.state}: cancel it and wait until it has stopped")

    # What a worker does.

    def claim(self, worker: str, kinds: tuple[str, ...] | None = None) -> Claim | None:
        """Take the oldest queued job (of these kinds), or None; first, jobs of silent workers return to the queue."""
        lease, now = secrets.token_hex(8), self.clock()
        marks = ", ".join("?" * len(kinds)) if kinds is not None else ""
        of_kind = f"AND kind IN ({marks})" if kinds is not None else ""
        with self._db.write() as db:
            self._recover(db, now, now - self.stale_s)
            row = db.execute(
                "UPDATE jobs SET state = 'running', worker = ?, lease = ?, attempts = attempts + 1, "
                "started_s = coalesce(started_s, ?), heartbeat_s = ? WHERE number = "
                f"(SELECT number FROM jobs WHERE state = 'queued' {of_kind} ORDER BY number LIMIT 1) RETURNING *",
                (worker, lease, now, now, *(kinds or ()))).fetchone()
        return Claim(self, self._job(row), lease) if row else None

    def beat(self, claim: Claim, progress: float | None = None, resume: Any = None) -> None:
        """Record a sign of life; raises JobCancelled or ClaimLost where the worker has to stop."""
        kept = None if resume is None else self._encode(resume, claim.job.id, "resume")
        with self._db.write() as db:
            row = db.execute("UPDATE jobs SET heartbeat_s = ?, progress = coalesce(?, progress), "
                             "resume = coalesce(?, resume) WHERE id = ? AND lease = ? RETURNING cancel_asked",
                             (self.clock(), progress, kept, claim.job.id, claim.lease)).fetchone()
        if row is None:
            raise _lost(claim)
        if row["cancel_asked"]:
            raise JobCancelled(f"job {claim.job.id} was cancelled by its owner")

    def finish(self, claim: Claim, result: Any = None) -> None:
        """The work is done; `result` is a JSON value."""
        self._end(claim, "done", "result", result, progress=1.0)

    def fail(self, claim: Claim, error: str) -> None:
        """The work can't be done; `error` says why to its owner."""
        self._end(claim, "failed", "error", error)

    def stopped(self, claim: Claim) -> None:
        """The worker has stopped because the job was cancelled."""
        self._end(claim, "cancelled", "error", None)

    def give_back(self, claim: Claim) -> None:
        """The worker leaves in good order: the job returns to the queue, and this attempt doesn't count."""
        with self._db.write() as db:
            changed = db.execute("UPDATE jobs SET state = 'queued', lease = NULL, worker = NULL, "
                                 "attempts = attempts - 1 WHERE id = ? AND lease = ? AND NOT cancel_asked",
                                 (claim.job.id, claim.lease)).rowcount
        if not changed:
            self.stopped(claim)                          # cancelled meanwhile, or lost (which this reports)

    def _end(self, claim: Claim, state: State, column: str, value: Any, progress: float | None = None) -> None:
        kept = None if value is None else self._encode(value, claim.job.id, column)
        with self._db.write() as db:
            changed = db.execute(f"UPDATE jobs SET state = ?, {column} = ?, progress = coalesce(?, progress), "
                                 "lease = NULL, resume = NULL, finished_s = ? WHERE id = ? AND lease = ?",
                                 (state, kept, progress, self.clock(), claim.job.id, claim.lease)).rowcount
        if not changed:
            raise _lost(claim)

    def recover(self) -> None:
        """For who knows that no worker lives: what runs returns to the queue now, without waiting for silence."""
        with self._db.write() as db:
            self._recover(db, self.clock(), math.inf)

    def _recover(self, db: sqlite3.Connection, now: float, silent_since: float) -> None:
        """Jobs of silent workers: cancelled where that was asked, failed after too many attempts, else queued again."""
        for row in db.execute("SELECT * FROM jobs WHERE state = 'running' AND heartbeat_s < ?",
                              (silent_since,)).fetchall():
            used_up = row["attempts"] >= row["max_attempts"]
            state = "cancelled" if row["cancel_asked"] else "failed" if used_up else "queued"
            error = f"its worker died {row['attempts']} times without finishing it" if state == "failed" else None
            db.execute("UPDATE jobs SET state = ?, lease = NULL, worker = NULL, error = ?, finished_s = ? "
                       "WHERE number = ?",
                       (state, self._encode(error, row["id"], "error") if error else None,
                        None if state == "queued" else now, row["number"]))

    # Storage.

    def _encode(self, value: Any, job_id: str, column: str) -> bytes:
        try:
            plain = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise DataError(f"a job's {column} must be a JSON value: {error}") from error
        return self.codec.encode(plain, f"jobs/{job_id}/{column}")

    def _decode(self, kept: bytes | None, job_id: str, column: str) -> Any:
        return None if kept is None else json.loads(self.codec.decode(kept, f"jobs/{job_id}/{column}"))

    def _job(self, row: sqlite3.Row) -> Job:
        values = {name: row[name] for name in Job.__dataclass_fields__}
        for column in ("payload", "resume", "result", "error"):
            values[column] = self._decode(row[column], row["id"], column)
        values["cancel_asked"] = bool(row["cancel_asked"])
        return Job(**values)


def _lost(claim: Claim) -> ClaimLost:
    return ClaimLost(f"job {claim.job.id} no longer belongs to this worker, which gave no sign of life for too long "
                     "or worked on after the end: drop its work")


def work_once(jobs: Jobs, worker: str, handlers: Mapping[str, Callable[[Claim], Any]]) -> Job | None:
    """Claim one job, run its handler to the end and record what came of it; None where nothing waits.

    A thread gives signs of life meanwhile. The handler calls `claim.beat(...)` where it can stop or be resumed.
    """
    claim = jobs.claim(worker, tuple(handlers))
    if claim is None:
        return None
    with suppress(ClaimLost):                            # its successor records the outcome
        try:
            with _kept_alive(claim):
                result = handlers[claim.job.kind](claim)
            jobs.finish(claim, result)
        except ClaimLost:
            raise
        except JobCancelled:
            jobs.stopped(claim)
        except Exception as error:
            jobs.fail(claim, f"{type(error).__name__}: {error}")
        except BaseException:                            # Ctrl-C: somebody else may go on
            jobs.give_back(claim)
            raise
    return claim.job


@contextmanager
def _kept_alive(claim: Claim) -> Iterator[None]:
    """Signs of life from a thread with a connection of its own, at a third of the time after which silence is death."""
    done = threading.Event()

    def beat() -> None:
        with closing(Jobs(claim.jobs.path, claim.jobs.codec, claim.jobs.stale_s, claim.jobs.clock)) as jobs:
            while not done.wait(claim.jobs.stale_s / 3):
                try:
                    jobs.beat(claim)
                except (JobCancelled, ClaimLost):
                    return                               # the handler's own next beat tells it

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
