"""`ayllu search`: the pictures and sounds of a folder found by words, by a picture or by a sound.

Vectors lie in one SQLite file, by default in the folder itself. A file is encoded once for each content: what has the
size and time it had is taken as it was, what was only moved or touched keeps its vector by its SHA-256.

N media  S width of the space
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ayllu.adapters.lora import fingerprint
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.resolve import bundled
from ayllu.data.media_rows import kind_of
from ayllu.database import Database
from ayllu.engine.parts import file_bytes
from ayllu.errors import BadMedia, CheckpointError, ConfigError, DataError
from ayllu.media.fast import fast
from ayllu.media.senses import Kind
from ayllu.media.space import WEIGHTS, Space, read_space, text_states
from ayllu.model.llama import Llama
from ayllu.text.tokenizer import Tokenizer

BUNDLED = "ayllu-mini-search"
FILE = ".ayllu-search.sqlite"
CREATE = """CREATE TABLE media (path TEXT PRIMARY KEY, kind TEXT NOT NULL, size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, vector BLOB, reason TEXT NOT NULL);
            CREATE INDEX by_content ON media (sha256);
            CREATE TABLE space (digest TEXT NOT NULL)"""
AT_ONCE = 32                                             # media encoded as one batch
Progress = Callable[[int, int, str], None]               # done, of, name


@dataclass
class Seeker:
    """A space with the Llama that reads for it, which is opened by the first text."""

    space: Space
    digest: str                                          # of the weights: vectors of another space are no neighbours
    _reads: tuple[Llama, Tokenizer] | None = None

    @classmethod
    def open(cls, name_or_path: str | Path) -> "Seeker":
        """A folder as `ayllu align` writes it with method="contrast", or the bundled one by its name."""
        folder = Path(name_or_path)
        if not folder.is_dir() and str(name_or_path) != BUNDLED:
            raise CheckpointError(f"no space at {name_or_path}: name a folder that ayllu align made with "
                                  f"method=\"contrast\", or {BUNDLED}")
        folder = folder if folder.is_dir() else bundled(BUNDLED)
        space = read_space(folder)
        space.senses = fast(space.senses)
        return cls(space, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())

    @torch.inference_mode()
    def text(self, text: str) -> np.ndarray:             # (S,)
        """The vector of words in any language that the Llama reads."""
        if not text.strip():
            raise ConfigError("the question is empty: say what the picture or sound should be of")
        if self._reads is None:
            source = open_checkpoint(self.space.config.senses.base)
            body, tokenizer = build_model(source, dtype=torch.float32), source.open_tokenizer()
            if tokenizer is None or fingerprint(body) != self.space.config.senses.fingerprint:
                raise CheckpointError(f"this space was made with other weights of {self.space.config.senses.base}: "
                                      "train it again, or take the weights that it was made with")
            self._reads = body, tokenizer
        return self.space.texts(text_states(*self._reads, [text]))[0].numpy()

    @torch.inference_mode()
    def media(self, files: list[tuple[Kind, bytes, str]]) -> list[np.ndarray | str]:
        """(S,) for each, or why there is none."""
        found: list[np.ndarray | str] = []
        ready = []
        for kind, data, name in files:
            try:
                ready.append(self.space.senses.medium(kind, data, name))
                found.append("")
            except BadMedia as error:
                found.append(str(error))
        vectors = iter(self.space.media(ready).numpy() if ready else ())
        return [next(vectors) if isinstance(one, str) and not one else one for one in found]


@dataclass
class Brought:
    """What bringing an index up to date did."""

    encoded: int = 0
    kept: int = 0
    removed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)    # by path, why


@dataclass(frozen=True)
class Hit:
    """A medium and how near it is, -1 to 1."""

    path: str
    kind: str
    score: float


class Gallery:
    """The index of one folder."""

    def __init__(self, folder: Path, seeker: Seeker, file: Path | None = None) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder: name one with pictures or sounds")
        self.folder, self.seeker = folder, seeker
        place = file or folder / FILE
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise ConfigError(f"{place} can't be written: name another place with --index FILE")
        self._db = Database(place, (CREATE,), "an index of pictures and sounds")
        with self._db.write() as sql:
            if [row["digest"] for row in sql.execute("SELECT digest FROM space")] != [seeker.digest]:
                sql.execute("DELETE FROM media")
                sql.execute("DELETE FROM space")
                sql.execute("INSERT INTO space VALUES (?)", (seeker.digest,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def update(self, progress: Progress = lambda done, of, name: None) -> Brought:
        """Encode what is new or changed, forget what is gone; stopped, it goes on where it was."""
        told = Brought()
        known = {row["path"]: row for row in self._db.read("SELECT path, size, mtime_ns, reason FROM media")}
        there = dict(self._files())
        gone = [path for path in known if path not in there]
        new = [path for path, seen in there.items()
               if path not in known or (known[path]["size"], known[path]["mtime_ns"]) != seen]
        told.kept = len(there) - len(new)
        for at in range(0, len(new), AT_ONCE):
            progress(at, len(new), new[at])
            self._add(new[at:at + AT_ONCE], there, told)
        with self._db.write() as sql:                    # last, so that what was moved has found its vector
            sql.executemany("DELETE FROM media WHERE path = ?", [(path,) for path in gone])
        told.removed = len(gone)
        told.left_out = {row["path"]: row["reason"] for row in
                         self._db.read("SELECT path, reason FROM media WHERE reason != '' ORDER BY path")}
        return told

    def search(self, vector: np.ndarray, k: int = 5, kind: str | None = None) -> list[Hit]:
        """The nearest media to a vector (S,)."""
        rows = self._db.read("SELECT path, kind, vector FROM media WHERE vector IS NOT NULL ORDER BY path")
        rows = [row for row in rows if kind in (None, row["kind"])]
        if not rows:
            raise DataError(f"{self.folder} holds no {kind or 'picture or sound'} that could be read")
        scores = np.stack([np.frombuffer(row["vector"], np.float32) for row in rows]) @ vector        # (N,)
        return [Hit(rows[i]["path"], rows[i]["kind"], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]]

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """(path below the folder, (size, time)) of each picture and sound that the space can take."""
        takes = self.seeker.space.config.senses.most_features
        for path in sorted(self.folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self.folder).parts)
            if not hidden and kind_of(path.name) in takes and path.is_file():
                facts = path.stat()
                yield str(path.relative_to(self.folder)), (facts.st_size, facts.st_mtime_ns)

    def _add(self, paths: list[str], there: dict[str, tuple[int, int]], told: Brought) -> None:
        contents, rows = dict[str, bytes](), list[tuple[Any, ...]]()
        for path in paths:
            try:
                contents[path] = file_bytes(self.folder / path)
            except BadMedia as error:                    # -1: it is tried again each time
                rows.append((path, kind_of(path), -1, 0, "", None, str(error)))
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
        marks = ", ".join("?" * len(hashes))
        same: dict[str, np.ndarray | str] = {
            row["sha256"]: row["reason"] if row["vector"] is None else np.frombuffer(row["vector"], np.float32)
            for row in self._db.read(f"SELECT sha256, vector, reason FROM media WHERE sha256 IN ({marks})",
                                     [*hashes.values()])}
        new = list({hash_: path for path, hash_ in hashes.items() if hash_ not in same}.values())
        vectors = self.seeker.media([(cast(Kind, kind_of(path)), contents[path], path) for path in new])
        found = same | {hashes[path]: vector for path, vector in zip(new, vectors, strict=True)}
        told.encoded += sum(not isinstance(vector, str) for vector in vectors)
        told.kept += sum(hash_ in same for hash_ in hashes.values())
        for path, hash_ in hashes.items():
            vector = found[hash_]
            blob = None if isinstance(vector, str) else np.ascontiguousarray(vector, np.float32).tobytes()
            rows.append((path, kind_of(path), *there[path], hash_, blob, vector if blob is None else ""))
        with self._db.write() as sql:
            sql.executemany("INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
