"""Whose collections there are: a table of them, and each in an SQLite file of its own."""

import secrets
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ayllu.apps.collection import Collection
from ayllu.database import Database
from ayllu.errors import RequestError
from ayllu.principal import Principal

MIGRATIONS = (
    """
    CREATE TABLE collections (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, owner TEXT NOT NULL,
        name TEXT NOT NULL, created_s REAL NOT NULL
    );
    CREATE INDEX collections_by_owner ON collections (tenant, owner, number);
    """,
)
MOST = 200                                               # collections of one person


@dataclass(frozen=True)
class Listed:
    """A collection as its owner called it."""

    id: str
    name: str
    created_s: float


class Catalogue:
    """Another person's collection looks like one that isn't there. Needs the scope "jobs", as all that is kept does."""

    def __init__(self, path: Path) -> None:
        self._db, self._folder = Database(path, MIGRATIONS, "the list of collections"), path.with_suffix("")
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._open: dict[str, Collection] = {}

    def close(self) -> None:
        """Close every collection."""
        with self._lock:
            for collection in self._open.values():
                collection.close()
            self._open.clear()
        self._db.close()

    def create(self, principal: Principal, name: str) -> Listed:
        """A new one, empty."""
        if len(self.list(principal)) >= MOST:
            raise RequestError(f"you have {MOST} collections, which is the most: delete one that you no longer need")
        made = Listed(secrets.token_hex(8), name, time.time())
        with self._db.write() as db:
            db.execute("INSERT INTO collections (id, tenant, owner, name, created_s) VALUES (?, ?, ?, ?, ?)",
                       (made.id, principal.tenant, principal.owner, name, made.created_s))
        return made

    def list(self, principal: Principal) -> "list[Listed]":
        """The principal's, newest first."""
        principal.require("jobs")
        return [_listed(row) for row in self._db.read(
            "SELECT * FROM collections WHERE tenant = ? AND owner = ? ORDER BY number DESC",
            (principal.tenant, principal.owner))]

    def get(self, principal: Principal, collection: str) -> tuple[Listed, Collection]:
        """One of them, open."""
        row = self._db.owned("collections", collection, principal)
        with self._lock:
            if collection not in self._open:
                self._open[collection] = Collection(self._path(collection))
            return _listed(row), self._open[collection]

    def delete(self, principal: Principal, collection: str) -> None:
        """Remove one with everything in it."""
        self.get(principal, collection)
        with self._db.write() as db:
            db.execute("DELETE FROM collections WHERE id = ?", (collection,))
        with self._lock:
            if found := self._open.pop(collection, None):
                found.close()
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path(collection)}{ending}").unlink()

    def _path(self, collection: str) -> Path:
        return self._folder / f"{collection}.sqlite"


def _listed(row: sqlite3.Row) -> Listed:
    return Listed(row["id"], row["name"], row["created_s"])
