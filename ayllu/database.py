"""One SQLite file, shared by any number of processes and threads: migrations, write-ahead logging, whole transactions.

    db = Database(path, (CREATE,), "the drafts file")
    with db.write() as sql:
        sql.execute("INSERT ...")
    rows = db.read("SELECT ...", (owner,))
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ayllu.errors import DataError, NotFound
from ayllu.principal import Principal

Read = Callable[..., list[sqlite3.Row]]                  # (sql, values) -> all rows of a query


class Database:
    """A file whose version i is lifted to i + 1 by entry i of `migrations`: append to them, never edit one."""

    def __init__(self, path: str | Path, migrations: Sequence[str], what: str) -> None:
        self.path, self._migrations, self._what = Path(path), migrations, what
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))          # its journals take over these rights
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            self._use_wal()
            self._db.execute("PRAGMA synchronous = FULL")                    # what is written survives a power cut
            self._migrate()
        except (sqlite3.DatabaseError, DataError) as error:
            self._db.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path} can't be used as {what} ({error}): if it is damaged or another program's, "
                            "move it away, and a new one is made") from error

    def close(self) -> None:
        """Close the file; the rows stay."""
        self._db.close()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[Read]:
        """`read`, of the file as it is now: what is written meanwhile isn't seen."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()      # "now" is the first time it reads
            yield lambda sql, values=(): db.execute(sql, values).fetchall()

    def owned(self, table: str, id: str, principal: Principal) -> sqlite3.Row:
        """A row of the principal's, who needs the scope "jobs"; somebody else's looks like one that isn't there."""
        principal.require("jobs")
        rows = self.read(f"SELECT * FROM {table} WHERE id = ? AND tenant = ? AND owner = ?",
                         (id, principal.tenant, principal.owner))
        if not rows:
            raise NotFound(f"there is no {table.removesuffix('s')} {id[:40]!r} of {principal.owner}: list the {table} "
                           "for their ids")
        return rows[0]

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start, so what it reads stays true."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def _use_wal(self, patience_s: float = 30.0) -> None:
        """Switch to write-ahead logging. SQLite doesn't wait for others that switch the same file: so this does."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        with self.write() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(self._migrations):
                raise DataError(f"{self.path} has schema version {version}, this Ayllu knows up to "
                                f"{len(self._migrations)}: update Ayllu, or use another file")
            for script in self._migrations[version:]:
                for statement in filter(str.strip, script.split(";")):       # executescript would commit in between
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(self._migrations)}")
