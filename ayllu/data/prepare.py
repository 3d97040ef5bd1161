"""From raw files to clean documents: in parallel, resumable, and the same bytes for any number of workers.

Rows are read in order and cut into parts; workers process parts and leave each in a file; duplicates are then judged in
the order of the documents. A run that was stopped goes on with the parts that it finds. The result is a folder with
`documents/` (one file for each source), `rejects.jsonl` (what couldn't be read) and `report.json` (what happened).
"""

import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from ayllu.data.cut import cut
from ayllu.data.duplicates import Seen
from ayllu.data.folders import PLAIN, files_below, kind_of, passed_over, some_files_below, stamp
from ayllu.data.overlap import index
from ayllu.data.part import EXCERPT, HOW_ONLY, Part, Preparation, Tally, load_libraries, process, read_part
from ayllu.data.progress import Bar, progress
from ayllu.data.readers import records
from ayllu.data.rows import Record, Reject, weigh
from ayllu.data.texts import single_texts
from ayllu.errors import DataError
from ayllu.files import atomic_folder, is_full, sha256, write_json
from ayllu.log import say, warn

VERSION = 4                                              # of the result: a step that changes it makes old work void


@dataclass(frozen=True)
class Raw:
    """A source as it lies on the disk; `name` stands for it in reports."""

    path: Path
    name: str
    fields: tuple[str, ...]

    @property
    def is_one_text(self) -> bool:
        """A single plain file is one document, which stays plain text, so that its end can be held out."""
        return self.path.is_file() and kind_of(self.path) in PLAIN

    def prepared_name(self, number: int) -> str:
        """Where its clean documents lie, relative to the result."""
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.name).name.split(".")[0]).strip("-") or "source"
        return f"documents/{number:03d}-{stem}.{'txt' if self.is_one_text else 'jsonl'}.zst"


Finished = Callable[[Raw, int], Iterator[Path]]          # (source, its number) -> its finished parts in order


def prepare_documents(sources: list[Raw], evaluation: list[Path], settings: Preparation, out: Path,
                      workers: int) -> dict[str, Any]:
    """Prepare sources into the folder `out`, and return its report; a finished `out` of the same inputs is taken as is.

    `evaluation` holds the files of `settings.overlap.files` as they lie on the disk.
    """
    stamps = _stamps(sources, evaluation)
    key = _key(sources, stamps, settings)
    if (report := _report(out)) and report["key"] == key:
        return report
    work = out.with_name(f".{out.name}.parts")
    with explained(out):
        load_libraries(settings)
        _claim(work, f"{key} {settings.part_bytes}")     # parts are cut at other places with another size
        known, n_short = _evaluation_index(evaluation, settings)
        with atomic_folder(out) as temporary, progress("preparing", _files(sources)) as bar:
            (temporary / "documents").mkdir()
            with _engine(workers, settings, known, work, bar) as finished:
                report = _write(sources, settings, finished, temporary)
            report = {"version": VERSION, "key": key, "settings": settings.model_dump(exclude=HOW_ONLY),
                      "evaluation": {"runs": len(known), "texts_too_short": n_short},
                      **_changed(stamps, _stamps(sources, evaluation)), **report}
            write_json(temporary / "report.json", report)
    shutil.rmtree(work)
    return report


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """What may end a long run without being anybody's fault, with what to do about it."""
    again = f"finished parts are kept beside {out}: run the same command again to go on"
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError("a worker process was ended from outside, most likely since the memory was full: take fewer "
                        f"--workers, or a smaller data.prepare.part_bytes; {again}") from error
    except OSError as error:
        if is_full(error):
            raise DataError(f"no room on the disk ({error.strerror}): make some; {again}") from error
        raise


def _changed(before: dict[Path, Any], after: dict[Path, Any]) -> dict[str, list[str]]:
    """The files that somebody wrote to while they were read; the next run sees that their key is another one."""
    names = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if names:
        warn(f"{len(names):,} files changed while they were read ({', '.join(names[:3])}): prepare once more when they "
             "are finished")
    return {"changed_while_read": names} if names else {}


def _write(sources: list[Raw], settings: Preparation, finished: Finished, out: Path) -> dict[str, Any]:
    seen, total, rows = Seen(settings.duplicates), Tally(), []
    with open(out / "rejects.jsonl", "w", encoding="utf-8") as rejects:
        for number, source in enumerate(sources):
            tally, name = Tally(), source.prepared_name(number)
            with _writer(out / name) as stream:
                for path in finished(source, number):
                    counted, found = read_part(path)
                    tally.add(counted, settings.examples)
                    for row in _without_duplicates(found, seen, tally, settings):
                        tally.counts.update(kept=1, kept_characters=len(row["text"]))
                        line = row["text"] if source.is_one_text else json.dumps(
                            {k: row[k] for k in ("text", "where", "language")}, ensure_ascii=False) + "\n"
                        stream.write(line.encode())
            rejects.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in tally.rejects)
            rows.append({"path": source.name, "file": name, "file_bytes": (out / name).stat().st_size,
                         "sha256": sha256(out / name), **_passed_over(source), **_facts(tally)})
            say(_line(source.name, tally))
            total.add(tally.__dict__, settings.examples)
    return {"sources": rows, "total": _facts(total), "examples": dict(sorted(total.examples.items()))}


def _passed_over(source: Raw) -> dict[str, dict[str, int]]:
    if not (found := passed_over(source.path)):
        return {}
    warn(f"{source.name}: passed over, being of no kind that is read: "
         + ", ".join(f"{n:,} {kind}" for kind, n in found.items()))
    return {"passed_over": found}


def _facts(tally: Tally) -> dict[str, Any]:
    return {**dict(sorted(tally.counts.items())), "dropped": dict(sorted(tally.dropped.items())),
            "changed": dict(sorted(tally.changed.items())), "personal_data": dict(sorted(tally.personal.items())),
            "languages": dict(sorted(tally.languages.items()))}


def _line(name: str, tally: Tally) -> str:
    dropped = ", ".join(f"{rule} {n:,}" for rule, n in tally.dropped.most_common(4))
    return (f"{name}: {tally.counts['kept']:,} of {tally.counts['documents']:,} documents kept"
            + (f"; dropped: {dropped}" if dropped else "")
            + (f"; {tally.counts['rejected']:,} bad rows in rejects.jsonl" if tally.counts["rejected"] else ""))


def _without_duplicates(found: Iterable[dict[str, Any]], seen: Seen, tally: Tally,
                        settings: Preparation) -> Iterator[dict[str, Any]]:
    for row in found:
        verdict = seen.judge(row["where"], row["exact"], row["near"])
        if verdict is None:
            yield row
            continue
        rule = f"duplicate.{verdict[0]}"
        tally.dropped[rule] += 1
        tally.show(rule, {"where": row["where"], "like": verdict[1], "text": row["text"][:EXCERPT]}, settings.examples)


def _parts(source: Raw, number: int, settings: Preparation, work: Path, bar: Bar) -> Iterator[Part]:
    """A source's rows in parts of about `part_bytes`, always cut at the same places."""
    def rows() -> Iterator[Record | Reject]:
        for file in files_below(source.path):
            name = source.name if source.path.is_file() else f"{source.name}/{file.relative_to(source.path).as_posix()}"
            with bar.watch(file) as moved:
                yield from bar.count(records(file, source.fields, name, settings.encoding, moved))
    for count, part in enumerate(cut(rows(), weigh, settings.part_bytes)):
        yield Part(work / f"{number:03d}-{count:06d}.jsonl.zst", source.fields, part)


def _in_order(parts: Iterable[Part], pool: ProcessPoolExecutor, most: int) -> Iterator[Path]:
    """Finished parts in their order, at most `most` of them under way; those found on the disk aren't done again."""
    waiting: deque[Future[Path] | Path] = deque()

    def first() -> Path:
        item = waiting.popleft()
        return item if isinstance(item, Path) else item.result()

    for part in parts:
        waiting.append(part.out if part.out.exists() else pool.submit(_process, part))
        if len(waiting) > most:
            yield first()
    while waiting:
        yield first()


_settings, _known = Preparation(), np.empty(0, dtype=np.uint64)          # of a worker process


def _start(settings: Preparation, known: np.ndarray) -> None:
    global _settings, _known
    _settings, _known = settings, known
    leave_with_parent()


def _process(part: Part) -> Path:
    return process(part, _settings, _known)


def leave_with_parent() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a parent that was killed must not leave workers behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _engine(workers: int, settings: Preparation, known: np.ndarray, work: Path, bar: Bar) -> Iterator[Finished]:
    """Who processes parts: processes of this machine, or Ray."""
    if settings.ray is None:
        with _pool(workers, settings, known) as pool:
            yield lambda source, number: _in_order(_parts(source, number, settings, work, bar), pool, 2 * workers)
        return
    from ayllu.data.over_ray import OverRay
    engine = OverRay(settings.ray, workers, settings, known)
    try:
        yield lambda source, number: engine.finished(source.path, source.name, source.fields,
                                                     work / f"ray-{number:03d}", bar.move)
    finally:
        engine.close()


@contextmanager
def _pool(workers: int, settings: Preparation, known: np.ndarray) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(settings, known))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)    # what is under way is finished and found by the next run


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    with open(path, "wb") as file, zstandard.ZstdCompressor(level=6).stream_writer(file) as stream:
        yield stream


def _evaluation_index(evaluation: list[Path], settings: Preparation) -> tuple[np.ndarray, int]:
    files = (file for path in evaluation for file in files_below(path))
    return index((text for file in files for text in single_texts(file, settings.overlap.fields)), settings.overlap.n)


def _files(sources: list[Raw]) -> list[Path]:
    return [file for source in sources for file in files_below(source.path)]


def _stamps(sources: list[Raw], evaluation: list[Path]) -> dict[Path, tuple[str, int, int]]:
    return {f: stamp(f) for path in [*(s.path for s in sources), *evaluation] for f in some_files_below(path)}


def _key(sources: list[Raw], stamps: dict[Path, tuple[str, int, int]], settings: Preparation) -> str:
    """Changes with the settings, and with the name, size and time of any file that is read."""
    facts = [VERSION, settings.model_dump(exclude=HOW_ONLY), [(s.name, s.fields, s.is_one_text) for s in sources],
             list(stamps.values())]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _report(out: Path) -> dict[str, Any] | None:
    path = out / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _claim(work: Path, key: str) -> None:
    """Use the parts of an earlier run only where it had the same inputs."""
    mark = work / "key"
    if mark.exists() and mark.read_text(encoding="utf-8") == key:
        say(f"going on with {len(list(work.glob('*.zst'))):,} finished parts")
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mark.write_text(key, encoding="utf-8")
