"""Files and folders brought into a collection, and kept in step with it: only what is new or changed is read."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ayllu.apps.documents.document import Limits, Unreadable
from ayllu.apps.documents.read import READERS
from ayllu.apps.index.cut import COLUMNS
from ayllu.apps.index.pool import prepare_all
from ayllu.apps.index.prepare import Ask, Prepared
from ayllu.apps.index.store import Put, Store
from ayllu.errors import DataError

TOGETHER = 64                                            # documents of one transaction, or what a second brings
CHARACTERS = 8_000_000                                   # that wait for one
Progress = Callable[[int, int, str], None]               # files done, of how many, and the last one's name


@dataclass
class Summary:
    """What came of it; `left_out` says why, `alike` which earlier document says nearly the same."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    alike: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)       # files of kinds that aren't read, by suffix
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        counts = ", ".join(f"{n} {name}" for name, n in (
            ("added", self.added), ("updated", self.updated), ("unchanged", self.unchanged), ("removed", self.removed),
            ("left out", len(self.left_out))) if n) or "nothing to read"
        others = ", ".join(f"{n} {suffix}" for suffix, n in self.passed_over.items())
        return [f"{counts} in {self.seconds:.1f} s",
                *(f"  left out: {source}: {reason}" for source, reason in self.left_out.items()),
                *(f"  {source}: {note}" for source, notes in self.notes.items() for note in notes),
                *(f"  {source} says nearly the same as {other}" for source, other in self.alike.items()),
                *([f"  passed over, of other kinds: {others}"] if others else [])]


@dataclass(frozen=True)
class File:
    """A file and the name that the collection has for it."""

    path: Path
    source: str


def files_of(paths: Sequence[str | Path], passed_over: dict[str, int]) -> list[File]:
    """The files themselves, and those of known kinds below folders, each once, by their names; hidden ones are left."""
    found: dict[str, File] = {}
    for path in map(Path, paths):
        if path.is_dir():
            for file in _below(path):
                suffix = file.suffix.lower()
                if suffix in READERS:
                    found.setdefault(str(file), File(file, str(file)))
                else:
                    passed_over[suffix or "without a suffix"] = passed_over.get(suffix or "without a suffix", 0) + 1
        elif path.exists():
            found.setdefault(str(path), File(path, str(path)))
        else:
            raise DataError(f"no file or folder at {path}: check the path")
    return list(found.values())


def _below(top: Path) -> Iterator[Path]:
    """In the order of their names; links to folders aren't followed, so no walk goes in circles."""
    for folder, names, files in os.walk(top):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith((".", "~$")))


def bring(store: Store, files: Sequence[File], gone: Sequence[str], meta: Mapping[str, str], limits: Limits,
          summary: Summary, progress: Progress | None = None, workers: int | None = None,
          columns: int = COLUMNS) -> Summary:
    """Read what is new or changed, forget what is gone. Stopped by Ctrl-C, it keeps what is done so far."""
    begun = time.monotonic()
    known = {row["source"]: row for row in store.rows("SELECT source, size, modified_ns, digest, meta FROM documents")}
    failed = {row["source"]: row for row in store.rows("SELECT * FROM left_out")}
    summary.removed += store.remove(gone)
    todo: dict[str, tuple[File, int, int]] = {}
    for file in files:
        size, modified_ns = _stamp(file.path)
        old = known.get(file.source) or failed.get(file.source)
        if old is None or (old["size"], old["modified_ns"]) != (size, modified_ns):
            todo[file.source] = file, size, modified_ns
        elif file.source in failed:
            summary.left_out[file.source] = failed[file.source]["reason"]
        else:
            summary.unchanged += 1
    n_same = len(files) - len(todo)
    asks = [Ask(str(file.path), known[source]["digest"] if source in known else "", columns, limits.model_dump())
            for source, (file, _, _) in todo.items()]
    waiting: list[Put] = []
    written = time.monotonic()
    try:
        for i, (source, (_, new)) in enumerate(zip(todo, prepare_all(asks, workers) if asks else (), strict=True), 1):
            _, size, modified_ns = todo[source]
            if isinstance(new, Prepared) and new.is_same:
                store.touch(source, size, modified_ns, meta)
                summary.unchanged += 1
            else:
                waiting.append(Put(source, size, modified_ns, meta, new if isinstance(new, Prepared) else str(new)))
                _count(summary, source, new, source in known)
            if (len(waiting) >= TOGETHER or time.monotonic() - written > 1
                    or sum(len(put.new.text) for put in waiting if isinstance(put.new, Prepared)) > CHARACTERS):
                store.put(waiting)
                waiting, written = [], time.monotonic()
            if progress:
                progress(n_same + i, len(files), source)
    finally:
        store.put(waiting)
    _name_alike(store, summary, todo)
    summary.seconds += time.monotonic() - begun
    return summary


def _count(summary: Summary, source: str, new: Prepared | Unreadable, is_known: bool) -> None:
    if isinstance(new, Unreadable):
        summary.left_out[source] = str(new)
        return
    summary.updated += is_known
    summary.added += not is_known
    if new.notes:
        summary.notes[source] = list(new.notes)


def _name_alike(store: Store, summary: Summary, todo: Mapping[str, object]) -> None:
    for row in store.rows("SELECT a.source, b.source AS other FROM documents a JOIN documents b ON b.id = a.alike "
                          "ORDER BY a.source"):
        if row["source"] in todo:
            summary.alike[row["source"]] = row["other"]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1                                    # reading it says why
    return status.st_size, status.st_mtime_ns
