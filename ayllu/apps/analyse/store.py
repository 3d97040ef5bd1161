"""What was found so far, in one SQLite file: a chunk of posts is there whole or not at all, so that a run goes on."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ayllu.data.rows import Reject
from ayllu.errors import ConfigError

FILE = "analysis.sqlite"
KEPT, OF_A_FILE = 200, 3                                 # bad rows that are named; all are counted, by their files
Row = dict[str, Any]


class Store:
    """Posts by number, in the order in which they were read."""

    def __init__(self, folder: Path, key: str, goes_on: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        if not goes_on:                                  # a pipe can't be read again
            self._remove()
        self._db = sqlite3.connect(self.path, timeout=1, isolation_level=None, check_same_thread=False)
        try:                                             # two runs would each add the posts
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript("BEGIN IMMEDIATE; COMMIT")
        except sqlite3.OperationalError as error:
            self._db.close()
            raise ConfigError(f"{folder} is in use by another run ({error}): wait for it, or name another folder with "
                              "--out") from error
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA secure_delete = ON")    # the secret of the pseudonyms mustn't stay in free pages
        self._db.executescript("""
            CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);
            CREATE TABLE IF NOT EXISTS posts (n INTEGER PRIMARY KEY, mark INTEGER, topic TEXT, row TEXT);
            CREATE INDEX IF NOT EXISTS marks ON posts (mark);
            CREATE TABLE IF NOT EXISTS rejects (file TEXT, line INTEGER, reason TEXT);
            CREATE TABLE IF NOT EXISTS left_out (file TEXT PRIMARY KEY, n INTEGER);""")
        if self.get("key") not in (None, key):
            self._db.close()
            raise ConfigError(f"{folder} holds an unfinished analysis of other posts or with other settings: name "
                              f"another folder with --out, or remove {self.path}")
        self.put("key", key)

    def get(self, key: str) -> str | None:
        """A fact of the run."""
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def put(self, key: str, value: str) -> None:
        """Keep a fact."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def number(self, key: str) -> int:
        """A fact that counts something."""
        return int(self.get(key) or 0)

    def add(self, rows: Iterable[tuple[str, Row]], rejects: Iterable[Reject], read: int) -> None:
        """(text as it came, what was found) of a chunk, its bad rows, and how many rows of the source are read."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for text, row in rows:
                self._db.execute("INSERT INTO posts (mark, row) VALUES (?, ?)",
                                 (_mark(text), json.dumps(row, ensure_ascii=False)))
            for reject in rejects:
                self._reject(reject)
            self.put("read", str(read))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _reject(self, reject: Reject) -> None:
        n, = self._db.execute("INSERT INTO left_out VALUES (?, 1) ON CONFLICT (file) DO UPDATE SET n = n + 1 "
                              "RETURNING n", (reject.file,)).fetchone()
        if n <= OF_A_FILE:
            self._db.execute("INSERT INTO rejects SELECT ?, ?, ? WHERE (SELECT count(*) FROM rejects) < ?",
                             (reject.file, reject.line, reject.reason, KEPT))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM posts").fetchone()[0])

    def rows(self, share: float = 1.0) -> Iterator[tuple[int, Row]]:
        """(number, row) of all posts, or of a share of them, spread evenly."""
        after, step = 0, 1 / share
        want = 0.0
        while found := self._db.execute("SELECT n, topic, row FROM posts WHERE n > ? ORDER BY n LIMIT 1000",
                                        (after,)).fetchall():
            for n, topic, row in found:
                after = n
                if n >= want:
                    want += step
                    yield n, json.loads(row) | ({"found_topic": topic} if topic is not None else {})

    def set_topics(self, topics: Iterable[tuple[str | None, int]]) -> None:
        """(topic, number) of posts."""
        self._db.execute("BEGIN")
        self._db.executemany("UPDATE posts SET topic = ? WHERE n = ?", topics)
        self._db.execute("COMMIT")

    def rejects(self) -> list[Reject]:
        """The first bad rows of each file."""
        return [Reject(*row) for row in self._db.execute("SELECT file, line, reason FROM rejects")]

    def left_out(self) -> dict[str, int]:
        """How many rows of a file are bad, of the files that `rejects` names; and of all others together."""
        named = {row.file for row in self.rejects()}
        counts = self._db.execute("SELECT file, n FROM left_out ORDER BY rowid").fetchall()
        others = sum(n for file, n in counts if file not in named)
        return {file: n for file, n in counts if file in named} | ({"...": others} if others else {})

    def copies(self) -> list[tuple[int, int]]:
        """(how often, number of the first) of texts that occur three times or more, the commonest first."""
        return [(int(n), int(first)) for n, first in self._db.execute(
            "SELECT count(*), min(n) FROM posts GROUP BY mark HAVING count(*) > 2 ORDER BY 1 DESC, 2 LIMIT 20")]

    def close(self, remove: bool = False) -> None:
        """Leave the file for a later run, or remove it with the secret that it holds."""
        self._db.close()
        if remove:
            self._remove()

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            self.path.with_name(FILE + end).unlink(missing_ok=True)


def _mark(text: str) -> int:
    """Equal for texts that differ in spaces and case only."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=7).digest())
