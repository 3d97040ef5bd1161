"""The SQLite file of a collection: documents, their chunks, the words of these, and what was left out.

A document's text is its chunks one after another; nothing is stored twice. A document is written or removed in one
transaction, so that a collection is whole at any moment, and work that was stopped goes on with the next file.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.apps.index.prepare import ALIKE, Prepared
from ayllu.apps.index.words import words
from ayllu.database import Database, Read
from ayllu.errors import DataError, NotFound

BAND = 8                                                 # places of a signature in one band: 16 bands of 128 places
MIGRATIONS = ("""
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path TEXT PRIMARY KEY, meta TEXT NOT NULL);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, title TEXT NOT NULL,
    size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, digest TEXT NOT NULL, characters INTEGER NOT NULL,
    pages TEXT NOT NULL, notes TEXT NOT NULL, meta TEXT NOT NULL, fingerprint BLOB NOT NULL, signature BLOB NOT NULL,
    alike INTEGER, added_s REAL NOT NULL);
CREATE INDEX documents_fingerprint ON documents (fingerprint);
CREATE TABLE left_out (source TEXT PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
    reason TEXT NOT NULL);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    page INTEGER, text TEXT NOT NULL, vector BLOB);
CREATE INDEX chunks_document ON chunks (document, start);
CREATE INDEX chunks_bare ON chunks (id) WHERE vector IS NULL;
CREATE TABLE bands (hash INTEGER NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (hash, document)) WITHOUT ROWID;
CREATE INDEX bands_document ON bands (document);
CREATE VIRTUAL TABLE found USING fts5 (words, title, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (found, row);
""",)                                                    # append, never edit one


@dataclass(frozen=True)
class Stored:
    """A document as lists show it."""

    id: int
    source: str
    kind: str
    title: str
    size: int                                            # bytes of the file
    characters: int
    pages: tuple[int, ...]
    notes: tuple[str, ...]
    meta: dict[str, str]
    digest: str
    modified_ns: int
    alike: int | None                                    # the id of an earlier document that says nearly the same
    added_s: float


@dataclass(frozen=True)
class Put:
    """A file on its way into the collection: what was read of it, or why it can't be."""

    source: str
    size: int
    modified_ns: int
    meta: Mapping[str, str]
    new: Prepared | str


class Store:
    """The file. Threads may share it: writing waits its turn, and other processes may read meanwhile."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _refuse_others(self.path)
        self._db = Database(path, MIGRATIONS, "a collection")
        self.write, self.close = self._db.write, self._db.close
        self.rows: Read = self._db.read

    @contextmanager
    def snapshot(self) -> Iterator["Store"]:
        """The file as it is now, to be read whatever is written meanwhile."""
        still = copy(self)
        with self._db.snapshot() as still.rows:
            yield still

    def one(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first value of the first row, or None."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    # Facts about the whole collection, as JSON values.

    def fact(self, name: str, default: Any = None) -> Any:
        """What was said of the collection under this name."""
        value = self.one("SELECT value FROM facts WHERE name = ?", (name,))
        return default if value is None else json.loads(value)

    def set_fact(self, name: str, value: Any) -> None:
        """Say something of the collection."""
        with self.write() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _json(value)))

    @property
    def stamp(self) -> tuple[int, int]:
        """Other after every change, whoever made it."""
        return self.one("PRAGMA data_version"), self.one("SELECT total_changes()")

    # Documents.

    def put(self, files: Sequence[Put]) -> None:
        """Write documents in the place of those with their names, in one transaction."""
        with self.write() as db:
            for file in files:
                self._forget(db, file.source)
                if isinstance(file.new, Prepared):
                    self._insert(db, file, file.new)
                else:
                    db.execute("INSERT INTO left_out VALUES (?, ?, ?, ?)",
                               (file.source, file.size, file.modified_ns, file.new))

    def _insert(self, db: sqlite3.Connection, file: Put, new: Prepared) -> None:
        number = db.execute(
            "INSERT INTO documents (source, kind, title, size, modified_ns, digest, characters, pages, notes, meta, "
            "fingerprint, signature, alike, added_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (file.source, new.kind, new.title, file.size, file.modified_ns, new.digest, len(new.text),
             json.dumps(new.pages), _json(new.notes), _json(file.meta), bytes.fromhex(new.fingerprint),
             bytes.fromhex(new.signature), self._alike(db, new), time.time())).lastrowid
        db.executemany("INSERT INTO bands VALUES (?, ?)", ((band, number) for band in set(bands(new.signature))))
        title = " ".join(words(f"{new.title} {Path(file.source).stem}"))
        for chunk in new.chunks:
            row = db.execute('INSERT INTO chunks (document, start, "end", page, text) VALUES (?, ?, ?, ?, ?)',
                             (number, chunk.start, chunk.end, chunk.page, new.text[chunk.start:chunk.end]))
            db.execute("INSERT INTO found (rowid, words, title) VALUES (?, ?, ?)", (row.lastrowid, chunk.words, title))

    def touch(self, source: str, size: int, modified_ns: int, meta: Mapping[str, str]) -> None:
        """The file was written anew with the same bytes, or something else is said of it."""
        with self.write() as db:
            db.execute("UPDATE documents SET size = ?, modified_ns = ?, meta = ? WHERE source = ?",
                       (size, modified_ns, _json(meta), source))

    def remove(self, sources: Sequence[str]) -> int:
        """Forget documents by their names; how many there were."""
        with self.write() as db:
            return sum(self._forget(db, source) for source in sources)

    @staticmethod
    def _forget(db: sqlite3.Connection, source: str) -> int:
        gone = db.execute("DELETE FROM left_out WHERE source = ?", (source,)).rowcount
        row = db.execute("SELECT id FROM documents WHERE source = ?", (source,)).fetchone()
        if row is None:
            return gone
        db.execute("DELETE FROM found WHERE rowid IN (SELECT id FROM chunks WHERE document = ?)", (row["id"],))
        db.execute("DELETE FROM chunks WHERE document = ?", (row["id"],))
        db.execute("DELETE FROM bands WHERE document = ?", (row["id"],))
        db.execute("DELETE FROM documents WHERE id = ?", (row["id"],))
        db.execute("UPDATE documents SET alike = NULL WHERE alike = ?", (row["id"],))
        return 1

    @staticmethod
    def _alike(db: sqlite3.Connection, new: Prepared) -> int | None:
        """The first document that says the same, or nearly: its signature is alike in at least 0.8 of its places."""
        row = db.execute("SELECT min(id) FROM documents WHERE fingerprint = ?",
                         (bytes.fromhex(new.fingerprint),)).fetchone()
        if row[0] is not None:
            return int(row[0])
        found = sorted(set(bands(new.signature)))
        marks = ", ".join("?" * len(found))
        mine = np.frombuffer(bytes.fromhex(new.signature), dtype=np.uint32)
        for row in db.execute("SELECT id, signature FROM documents WHERE id IN (SELECT document FROM bands WHERE hash "
                              f"IN ({marks})) ORDER BY id", found):
            if (np.frombuffer(row["signature"], dtype=np.uint32) == mine).mean() >= ALIKE.threshold:
                return int(row["id"])
        return None

    def documents(self) -> list[Stored]:
        """All of them, by their names."""
        return [_stored(row) for row in self.rows("SELECT * FROM documents ORDER BY source")]

    def document(self, number: int) -> Stored:
        """One by its id."""
        rows = self.rows("SELECT * FROM documents WHERE id = ?", (number,))
        if not rows:
            raise NotFound(f"there is no document {number} in this collection: list its documents")
        return _stored(rows[0])

    def text(self, document: int, start: int = 0, end: int | None = None) -> str:
        """What stands at a place of a document."""
        rows = self.rows('SELECT start, text FROM chunks WHERE document = ? AND "end" > ? AND start < ? ORDER BY start',
                         (document, start, 2**62 if end is None else end))
        if not rows:
            return ""
        first = rows[0]["start"]
        return "".join(row["text"] for row in rows)[max(start - first, 0):None if end is None else max(end - first, 0)]


def bands(signature: str) -> list[int]:
    """A number for each band of a signature: documents that are alike share at least one, very likely."""
    places = np.frombuffer(bytes.fromhex(signature), dtype=np.uint32).reshape(-1, BAND)
    return [int.from_bytes(blake2b(bytes([i]) + part.tobytes(), digest_size=8).digest(), "little", signed=True)
            for i, part in enumerate(places)]


def _refuse_others(path: Path) -> None:
    """Whatever else lies there must not be written to."""
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            names = {name for name, in db.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is no collection ({error}): name another file") from error
    if names and not {"documents", "chunks", "found"} <= names:
        raise DataError(f"{path} is a database, but no collection: name another file")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stored(row: sqlite3.Row) -> Stored:
    values = {name: row[name] for name in Stored.__dataclass_fields__}
    return Stored(**{**values, "pages": tuple(json.loads(row["pages"])), "notes": tuple(json.loads(row["notes"])),
                     "meta": json.loads(row["meta"])})
