"""Files that people bring and that their jobs make: bytes under random names in one folder, facts in SQLite beside it.

A name comes from a client, so it is told and never a path. Another person's file looks like one that isn't there.
"""

import os
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from ayllu.database import Database
from ayllu.files import sync
from ayllu.principal import Principal
from ayllu.server.faults import Fault

MIGRATIONS = (
    """
    CREATE TABLE files (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, owner TEXT NOT NULL,
        name TEXT NOT NULL, bytes INTEGER NOT NULL, job TEXT, created_s REAL NOT NULL
    );
    CREATE INDEX files_by_owner ON files (tenant, owner, number);
    CREATE INDEX files_by_job ON files (job);
    """,
)
LONGEST_NAME = 200                                       # characters


@dataclass(frozen=True)
class Kept:
    """What is known of a file. `job` made it, or it was brought."""

    id: str
    name: str
    bytes: int
    job: str | None
    created_s: float


class FileStore:
    """One folder; `most_bytes` is what one person may keep in it."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in folder.glob("*.part"):               # of a server that was killed
            part.unlink(missing_ok=True)
        self._db = Database(folder / "files.sqlite", MIGRATIONS, "the table of files")

    def close(self) -> None:
        """Close the table; the files stay."""
        self._db.close()

    def part(self) -> Path:
        """Where bytes go until they are whole; `keep` takes them over, else it is the caller's to remove."""
        return self.folder / f"{secrets.token_hex(8)}.part"

    def keep(self, principal: Principal, name: str, part: Path, job: str | None = None) -> Kept:
        """Take over a whole file."""
        n_bytes = part.stat().st_size
        self.check_room(principal, n_bytes)
        kept = Kept(secrets.token_hex(8), plain_name(name), n_bytes, job, time.time())
        sync(part)
        os.replace(part, self.path(kept))
        sync(self.folder)
        with self._db.write() as db:
            db.execute("INSERT INTO files (id, tenant, owner, name, bytes, job, created_s) "
                       "VALUES (?, ?, ?, ?, ?, ?, ?)",
                       (kept.id, principal.tenant, principal.owner, kept.name, n_bytes, job, kept.created_s))
        return kept

    def check_room(self, principal: Principal, n_bytes: int = 1) -> None:
        """Refuse what is more than one person may keep; needs the scope "jobs", as all that is kept does."""
        principal.require("jobs")
        used = self._db.read("SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ? AND owner = ?",
                             (principal.tenant, principal.owner))[0][0]
        if used + n_bytes > self.most_bytes:
            raise Fault(413, f"{used} of {self.most_bytes} bytes are kept for you already, and {n_bytes} more don't "
                        "fit: delete files or finished jobs that you no longer need", code="store_full")

    def get(self, principal: Principal, file_id: str) -> Kept:
        """One of the principal's files."""
        return _kept(self._db.owned("files", file_id, principal))

    def path(self, kept: Kept) -> Path:
        """Where its bytes lie: under its ending, by which readers know what it is."""
        ending = re.search(r"\.[A-Za-z0-9]{1,8}$", kept.name)
        return self.folder / (kept.id + (ending[0].lower() if ending and ending[0] != ".part" else ""))

    def files_of(self, principal: Principal, limit: int = 100) -> list[Kept]:
        """The principal's files, newest first."""
        principal.require("jobs")
        return [_kept(row) for row in self._db.read(
            "SELECT * FROM files WHERE tenant = ? AND owner = ? ORDER BY number DESC LIMIT ?",
            (principal.tenant, principal.owner, limit))]

    def delete(self, principal: Principal, file_id: str) -> None:
        """Remove one."""
        self._remove([self.get(principal, file_id)])

    def delete_of(self, job: str) -> None:
        """Remove all that a job made."""
        self._remove([_kept(row) for row in self._db.read("SELECT * FROM files WHERE job = ?", (job,))])

    def _remove(self, files: list[Kept]) -> None:
        for kept in files:
            with self._db.write() as db:
                db.execute("DELETE FROM files WHERE id = ?", (kept.id,))
            self.path(kept).unlink(missing_ok=True)


def plain_name(name: str) -> str:
    """The last part of what a client calls a file, without signs that command a terminal or a header."""
    last = re.split(r"[/\\]", name)[-1]
    clean = "".join(c for c in last if c.isprintable()).strip(" .")
    stem, dot, ending = clean.rpartition(".")
    return (f"{stem[:LONGEST_NAME - 20]}{dot}{ending[:19]}" if stem else ending[:LONGEST_NAME]) or "file"


def _kept(row: sqlite3.Row) -> Kept:
    return Kept(**{name: row[name] for name in Kept.__dataclass_fields__})
