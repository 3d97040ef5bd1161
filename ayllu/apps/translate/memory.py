"""The translation memory: what was translated once, in one SQLite file.

A sentence that comes again is taken from it, by the same model or where a person wrote it. One that differs in its
numbers alone is taken with the new numbers. Others that are alike are shown, and given to a model as an example. It is
also what a run that was stopped goes on from.
"""

import difflib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ayllu.apps.translate.holes import NUMBER
from ayllu.apps.translate.languages import Pair
from ayllu.database import Database

MIGRATIONS = ("""
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        source_language TEXT NOT NULL, target_language TEXT NOT NULL,
        maker TEXT NOT NULL,
        source TEXT NOT NULL, shape TEXT NOT NULL, target TEXT NOT NULL,
        probability REAL, made_s REAL NOT NULL,
        UNIQUE (source_language, target_language, maker, source)
    );
    CREATE INDEX entries_by_shape ON entries (source_language, target_language, shape);
    CREATE VIRTUAL TABLE entry_words USING fts5 (source, content='entries', content_rowid='id', tokenize='trigram');
    CREATE TABLE word_state (id INTEGER PRIMARY KEY CHECK (id = 1), indexed INTEGER NOT NULL);
    INSERT INTO word_state VALUES (1, 0)
    """,)
PERSON = "person"                                        # the maker of what a person wrote or corrected
ALIKE = 0.75                                             # least similarity of an example


@dataclass(frozen=True)
class Entry:
    """One sentence and its translation; `likeness` to what was looked for, and how it was come by."""

    source: str
    target: str
    maker: str
    probability: float | None
    kind: Literal["exact", "numbers", "alike"] = "exact"
    likeness: float = 1.0


class Memory:
    """Entries of one file, for all pairs of languages."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._db = Database(path, MIGRATIONS, "a translation memory")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(self, pair: Pair, source: str, maker: str) -> Entry | None:
        """The sentence itself, or one that differs in its numbers alone; a person's word goes first."""
        rows = self._db.read("SELECT * FROM entries WHERE source_language = ? AND target_language = ? AND shape = ? "
                             "AND maker IN (?, ?) ORDER BY source = ? DESC, maker = ? DESC, id DESC LIMIT 20",
                             (pair.source, pair.target, _shape(source), PERSON, maker, source, PERSON))
        for row in rows:
            if row["source"] == source:
                return Entry(source, row["target"], row["maker"], row["probability"])
            target = _with_numbers(row["source"], row["target"], source)
            if target is not None:
                return Entry(row["source"], target, row["maker"], row["probability"], "numbers",
                             difflib.SequenceMatcher(None, row["source"], source, autojunk=False).ratio())
        return None

    def alike(self, pair: Pair, source: str, most: int = 3, least: float = ALIKE) -> list[Entry]:
        """Sentences that resemble it, the most alike first."""
        self._index()
        step = max(1, (len(source) - 2) // 24)
        grams = {source[i:i + 3] for i in range(0, len(source) - 2, step)}
        if not grams:
            return []
        query = " OR ".join('"' + gram.replace('"', '""') + '"' for gram in sorted(grams))
        rows = self._db.read("SELECT e.* FROM entry_words JOIN entries e ON e.id = entry_words.rowid WHERE entry_words "
                             "MATCH ? AND e.source_language = ? AND e.target_language = ? ORDER BY rank LIMIT 20",
                             (query, pair.source, pair.target))
        found = []
        for row in rows:
            ratio = difflib.SequenceMatcher(None, row["source"], source, autojunk=False).ratio()
            if ratio >= least and row["source"] != source:
                found.append(Entry(row["source"], row["target"], row["maker"], row["probability"], "alike", ratio))
        return sorted(found, key=lambda e: -e.likeness)[:most]

    def add(self, pair: Pair, maker: str, entries: Iterable[tuple[str, str, float | None]]) -> None:
        """Keep (source, target, probability); a newer one takes the place of an older one by the same maker."""
        with self._db.write() as sql:
            for source, target, probability in entries:
                sql.execute("INSERT INTO entries (source_language, target_language, maker, source, shape, target, "
                            "probability, made_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET target = "
                            "excluded.target, probability = excluded.probability, made_s = excluded.made_s",
                            (pair.source, pair.target, maker, source, _shape(source), target, probability,
                             time.time()))

    def count(self) -> int:
        """How many entries there are."""
        return int(self._db.read("SELECT count(*) FROM entries")[0][0])

    def _index(self) -> None:
        """Bring the index of words up to the newest entry: it is asked seldom and written often."""
        with self._db.write() as sql:
            done = sql.execute("SELECT indexed FROM word_state").fetchone()[0]
            sql.execute("INSERT INTO entry_words (rowid, source) SELECT id, source FROM entries WHERE id > ?", (done,))
            sql.execute("UPDATE word_state SET indexed = (SELECT coalesce(max(id), 0) FROM entries)")


def _shape(source: str) -> str:
    return NUMBER.sub("#", source)


def _with_numbers(old: str, target: str, new: str) -> str | None:
    """The translation with the new sentence's numbers, where each old one stands in it exactly once."""
    before, after = NUMBER.findall(old), NUMBER.findall(new)
    in_target = NUMBER.findall(target)
    if len(set(before)) != len(before) or sorted(in_target) != sorted(before):
        return None
    table: dict[str, str] = dict(zip(before, after, strict=True))
    return NUMBER.sub(lambda m: table[m.group()], target)
