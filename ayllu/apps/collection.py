"""`Collection`: documents in one SQLite file, kept in step with folders, and searched.

Nothing leaves the machine, and instructions that stand in documents are text like any other.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from ayllu.apps.documents.document import Document, Limits, clean
from ayllu.apps.index.adding import TOGETHER, File, Progress, Summary, bring, files_of
from ayllu.apps.index.embedding import TOKENS, Embedder, embedder_of
from ayllu.apps.index.prepare import prepared
from ayllu.apps.index.ranking import Where, by_words, filtered, fused, mixed
from ayllu.apps.index.store import Put, Store, Stored
from ayllu.apps.index.vectors import Vectors, add_vectors
from ayllu.errors import DataError, RequestError

Way = Literal["hybrid", "rrf", "words", "dense"]              # rrf: both, by reciprocal rank instead of by score
CAPTION = "picture: "                                    # how the name of a caption begins (apps/perceive.py)
CAPTIONED = "captioned"                                  # the fact of which paths a model spoke of: {path: model}
DEEP = 100                                               # of each ranking, what is fused
SHORT = 160                                              # characters of a chunk on average, below which texts are short
DENSE, DENSE_SHORT = 0.001, 0.45                         # weight of the vectors: chosen on dev parts, docs/documents.md


@dataclass(frozen=True)
class Passage:
    """A chunk that was found: `text` stands in the document from the character `start` to `end`."""

    id: int
    document: int
    source: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    score: float
    also: tuple[str, ...] = ()                           # other documents with this very passage
    kind: str = ""                                       # of the document: pdf, csv, ...


class Collection:
    """One file. Threads may share it."""

    def __init__(self, path: str | Path, limits: Limits | None = None) -> None:
        self.store, self.limits = Store(path), limits or Limits()
        self._vectors = Vectors(self.store)
        self._weight: tuple[tuple[int, int], float] | None = None

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    # What is in it.

    def add(self, paths: Sequence[str | Path], meta: Mapping[str, str] | None = None, progress: Progress | None = None,
            workers: int | None = None) -> Summary:
        """Read files and folders; what is known and unchanged isn't read again, and what is gone from a folder goes
        from the collection, too. The paths are remembered for `update`. `meta` is said of each document."""
        summary = Summary()
        files = files_of(paths, summary.passed_over)
        gone = self._gone([str(path) for path in paths if Path(path).is_dir()], {file.source for file in files})
        with self.store.write() as db:
            db.executemany("INSERT OR REPLACE INTO roots VALUES (?, ?)", [(str(path), _meta(meta)) for path in paths])
        return bring(self.store, files, gone, meta or {}, self.limits, summary, progress, workers)

    def add_named(self, files: Mapping[str, str | Path], meta: Mapping[str, str] | None = None,
                  progress: Progress | None = None, workers: int | None = None) -> Summary:
        """Files under names of their own: uploads, whose paths say nothing. `update` leaves them."""
        return bring(self.store, [File(Path(path), name) for name, path in files.items()], [], meta or {}, self.limits,
                     Summary(), progress, workers)

    def add_texts(self, texts: Mapping[str, str], meta: Mapping[str, str] | None = None) -> None:
        """Texts that are at hand, under names of their own."""
        for start in range(0, len(texts), TOGETHER):
            files = []
            for name in list(texts)[start:start + TOGETHER]:
                data = texts[name].encode(errors="replace")
                new = prepared(Document(clean(texts[name]), "text"), sha256(data).hexdigest())
                files.append(Put(name, len(data), 0, meta or {}, new))
            self.store.put(files)

    def update(self, progress: Progress | None = None, workers: int | None = None) -> Summary:
        """Look again at every path that was added."""
        summary = Summary()
        for row in self.store.rows("SELECT path, meta FROM roots ORDER BY path"):
            if not Path(row["path"]).is_absolute() and not Path(row["path"]).exists():
                raise DataError(f"{row['path']} is no file or folder here: update from the folder it was added in")
            files = files_of([row["path"]], summary.passed_over) if Path(row["path"]).exists() else []
            gone = self._gone([row["path"]], {file.source for file in files})
            bring(self.store, files, gone, json.loads(row["meta"]), self.limits, summary, progress, workers)
        return summary

    def remove(self, paths: Sequence[str]) -> int:
        """Forget documents by their names, or all below a folder, with what was said of their pictures; how many they
        were. The files stay on the disk."""
        names = [name for path in paths for name in (*self._below(str(path)), *self.captions(str(path)))]
        if not names:
            raise DataError(f"no document {', '.join(map(str, paths))} in {self.store.path}: list its documents")
        with self.store.write() as db:
            db.executemany("DELETE FROM roots WHERE path = ?", [(str(path),) for path in paths])
            db.executemany("DELETE FROM facts WHERE name = ?", [(name,) for name in names])
        self.store.set_fact(CAPTIONED, {path: model for path, model in self.store.fact(CAPTIONED, {}).items()
                                        if path not in map(str, paths)})
        return self.store.remove(names)

    def captions(self, path: str) -> list[str]:
        """Names of what was said of a file's pictures or sounds, or of all below a folder, and of facts about these."""
        own, begins = CAPTION + path, tuple(CAPTION + path.rstrip("/") + mark for mark in ("/", ", "))
        rows = self.store.rows("SELECT source FROM documents UNION SELECT source FROM left_out UNION SELECT name FROM "
                               "facts ORDER BY 1")
        return [row[0] for row in rows if row[0] == own or row[0].startswith(begins)]

    def documents(self) -> list[Stored]:
        """Every document, by its name."""
        return self.store.documents()

    def left_out(self) -> dict[str, str]:
        """Files that can't be read, and why."""
        return {row["source"]: row["reason"] for row in self.store.rows("SELECT * FROM left_out ORDER BY source")}

    def text(self, document: int, start: int = 0, end: int | None = None) -> str:
        """What stands at a place of a document."""
        return self.store.text(document, start, end)

    def __len__(self) -> int:
        return int(self.store.one("SELECT count(*) FROM documents"))

    # What is found in it.

    @contextmanager
    def snapshot(self) -> Iterator["Collection"]:
        """The collection as it is now, to be searched and quoted whatever is written meanwhile."""
        still = copy(self)
        with self.store.snapshot() as still.store:
            yield still

    def add_vectors(self, embedder: Embedder | str = TOKENS, progress: Progress | None = None) -> None:
        """Make the collection searchable by meaning, too: a vector for each chunk that has none. Stopped, it goes on.
        Call it again after `add`; vectors of another embedder are made anew."""
        embedder = embedder_of(embedder) if isinstance(embedder, str) else embedder
        total = self.store.one("SELECT count(*) FROM chunks")
        for done in add_vectors(self.store, embedder):
            if progress:
                progress(done, total, "vectors")

    def search(self, question: str, k: int = 5, where: Where | None = None, way: Way = "hybrid",
               weight: float | None = None, embedder: Embedder | None = None) -> list[Passage]:
        """The best k passages for a question, best first. `where` keeps documents by `source` (a pattern with *),
        `kind` or metadata. `weight` is that of the vectors in the hybrid ranking, 0 to 1 (None: see
        `dense_weight`); without vectors it is 0."""
        return self.passages(self.ranked(question, 3 * k, where, way, weight, embedder), k)

    def ranked(self, question: str, k: int, where: Where | None = None, way: Way = "hybrid",
               weight: float | None = None, embedder: Embedder | None = None) -> list[tuple[int, float]]:
        """Chunks by their ids and scores."""
        name = self.store.fact("embedder")
        weight = self.dense_weight() if weight is None else weight
        if way == "words" or (way in ("hybrid", "rrf") and name is None) or (way == "hybrid" and weight == 0):
            return by_words(self.store, question, k, where)
        if name is None:
            raise RequestError("this collection has no vectors: make some first (ayllu documents add --vectors), or "
                               "search by words")
        near = self._vectors.search(embedder or embedder_of(name), question, DEEP, where)
        if way == "dense":
            return near[:k]
        said = by_words(self.store, question, DEEP, where)
        if way == "rrf":
            return fused([(1.0, [number for number, _ in ranking]) for ranking in (said, near)])[:k]
        return mixed(said, near, weight, DEEP)[:k]

    def holds(self, where: Where) -> bool:
        """Whether any document fits."""
        condition, values = filtered(where)
        return bool(self.store.rows(f"{condition} LIMIT 1", values))

    def dense_weight(self) -> float:
        """Short texts (questions, posts) share few words with a question, so vectors count; among passages of a hundred
        words and more they only order what words leave equal, or don't find."""
        stamp = self.store.stamp
        if self._weight is None or self._weight[0] != stamp:             # looks at every chunk, so only after a change
            mean = self.store.one('SELECT avg("end" - start) FROM chunks')
            self._weight = stamp, DENSE_SHORT if mean is not None and mean < SHORT else DENSE
        return self._weight[1]

    def passages(self, ranked: Sequence[tuple[int, float]], k: int) -> list[Passage]:
        """Chunks by their ids and scores; what is the same text in several documents is one passage."""
        found: dict[str, Passage] = {}
        for number, score in ranked:
            rows = self.store.rows("SELECT c.*, d.source, d.title, d.kind FROM chunks c JOIN documents d "
                                   "ON d.id = c.document WHERE c.id = ?", (number,))
            for row in rows:
                text = row["text"]
                start = row["start"] + len(text) - len(text.lstrip())
                key, text = " ".join(text.split()), text.strip()
                if key in found:
                    known = found[key]
                    found[key] = replace(known, also=(*known.also, row["source"]))
                elif len(found) < k and text:
                    found[key] = Passage(number, row["document"], row["source"], row["title"], text, start,
                                         start + len(text), row["page"], score, kind=row["kind"])
        return list(found.values())

    def _below(self, path: str) -> list[str]:
        folder = path.rstrip("/") + "/"
        return [row["source"] for table in ("documents", "left_out")
                for row in self.store.rows(f"SELECT source FROM {table}")
                if row["source"] == path or row["source"].startswith(folder)]

    def _gone(self, roots: Sequence[str], here: set[str]) -> list[str]:
        return [name for root in roots for name in self._below(root) if name not in here]


def _meta(meta: Mapping[str, str] | None) -> str:
    return json.dumps(dict(meta or {}), ensure_ascii=False)
