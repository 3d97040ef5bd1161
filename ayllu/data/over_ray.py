"""The parts of a corpus prepared by Ray Data, on one machine or many, for `ayllu data prepare --ray`.

Machines read groups of whole files and send finished parts back; the one that was asked judges duplicates in the order
of the documents, as without Ray, so that the result has the same bytes. Each machine needs Ayllu and the files under
the same paths. Parts wait in the work folder as they do without Ray: a run that was stopped goes on with whole groups.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayllu import cluster
from ayllu.data.cut import cut
from ayllu.data.folders import files_below, size_of
from ayllu.data.packed import Moved
from ayllu.data.part import Part, Preparation, content
from ayllu.data.readers import records
from ayllu.data.rows import weigh
from ayllu.errors import AylluError, extra
from ayllu.files import write_bytes, write_text


@dataclass(frozen=True)
class Group:
    """Files of one source that one task reads, with the names that they have in reports."""

    files: list[str]
    names: list[str]
    n_bytes: int


class OverRay:
    """A connection to Ray that prepares one source after another."""

    def __init__(self, address: str, workers: int, settings: Preparation, known: np.ndarray) -> None:
        cluster.silence()
        with extra("ray", "preparing data over Ray", "; or leave --ray away: one machine needs no Ray"):
            import ray
            import ray.data
        self.ray, self.settings, self.known = ray, settings, known
        cluster.connect(ray, address, workers)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def close(self) -> None:
        """Leave Ray; a cluster that was there before goes on."""
        self.ray.shutdown()

    def finished(self, path: Path, name: str, fields: tuple[str, ...], stem: Path, move: Moved) -> Iterator[Path]:
        """A source's parts in their order, beside `stem`; `move` is told of each group's bytes on the disk."""
        groups = _groups(path, name, self.settings.part_bytes)
        marks = [stem.with_name(f"{stem.name}-{i:06d}.end") for i in range(len(groups))]
        left = [i for i, mark in enumerate(marks) if not mark.exists()]
        fresh = self._compute([groups[i] for i in left], fields) if left else iter(())
        for group, mark in zip(groups, marks, strict=True):
            if not mark.exists():
                _keep(fresh, mark)
            count = json.loads(mark.read_text(encoding="utf-8"))
            yield from (_part(mark, i) for i in range(count))
            move(group.n_bytes)

    def _compute(self, groups: list[Group], fields: tuple[str, ...]) -> Iterator[bytes]:
        """Finished parts of each group, and after them one of no bytes."""
        rows = [{"files": json.dumps([g.files, g.names])} for g in groups]
        task: Any = _prepare_group                       # ray's own types are stricter than what it takes
        data = self.ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            task, batch_size=1,
            fn_kwargs={"settings": self.settings, "known": self.known, "fields": fields})
        try:
            for row in data.iter_rows():
                yield row["data"]
        except self.ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, AylluError) else error from None


def _prepare_group(batch: dict[str, Any], settings: Preparation, known: np.ndarray,
                   fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Ray's side: read the files of one group, and give each part's documents as `process` would write them."""
    files, names = json.loads(batch["files"][0])
    rows = (row for file, name in zip(files, names, strict=True)
            for row in records(Path(file), fields, name, settings.encoding))
    for part in cut(rows, weigh, settings.part_bytes):
        yield {"data": [content(Part(Path(), fields, part), settings, known)]}
    yield {"data": [b""]}


def _groups(path: Path, name: str, least: int) -> list[Group]:
    """Neighbouring files in groups of at least so many bytes: thousands of small files become few tasks."""
    groups, files, names, size = [], [], [], 0
    for file in files_below(path):
        files.append(str(file.resolve()))
        names.append(name if path.is_file() else f"{name}/{file.relative_to(path).as_posix()}")
        size += size_of(file)
        if size >= least:
            groups.append(Group(files, names, size))
            files, names, size = [], [], 0
    return [*groups, Group(files, names, size)] if files else groups


def _keep(fresh: Iterator[bytes], mark: Path) -> None:
    """Write the next group's parts, and last the mark that says how many there are."""
    count = 0
    while data := next(fresh):
        write_bytes(_part(mark, count), data)
        count += 1
    write_text(mark, json.dumps(count))


def _part(mark: Path, number: int) -> Path:
    return mark.with_name(f"{mark.stem}-{number:06d}.jsonl.zst")
