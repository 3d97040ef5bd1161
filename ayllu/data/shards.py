"""Token shards: memory-mapped files of ids with a manifest that says what they were made from.

A folder holds `train.bin` (documents in shuffled order, each BOS … EOS; where sources have weights, source by source,
and `ends` in the manifest says where each ends), `held_out.<language>.bin` and
`manifest.json`; where the recipe has `[data.prepare]`, the manifest says what was dropped and changed. Ids are
little-endian uint16, or uint32 for vocabularies past 65,536.
"""

import hashlib
import json
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.data.corpus import NO_WEIGHTS, Corpus, Source, prepared, source_path, split, uniform
from ayllu.data.cut import cut
from ayllu.data.folders import files_below
from ayllu.data.order import Part
from ayllu.data.pack import document_starts
from ayllu.data.part import HOW_ONLY
from ayllu.data.prepare import explained, leave_with_parent
from ayllu.data.progress import Bar, progress
from ayllu.data.verify import check_sizes, check_sums
from ayllu.errors import DataError
from ayllu.files import atomic_folder, atomic_path, sha256, write_json
from ayllu.log import say, warn
from ayllu.text.tokenizer import Tokenizer

BATCH_CHARACTERS = 1_000_000
Ids = tuple[Path, int, int]                              # a document's ids on the disk: file, first byte, bytes


@dataclass(frozen=True)
class Shards:
    """An opened folder of token shards."""

    folder: Path
    manifest: dict[str, Any]

    def train(self) -> np.ndarray:
        """All training ids, memory-mapped: shape (tokens,)."""
        return np.memmap(self.folder / "train.bin", dtype=self.manifest["dtype"], mode="r")

    def parts(self, weights: Sequence[float]) -> tuple[Part, ...]:
        """Where each weighted source lies among the training ids, with its weight."""
        ends = self.manifest["ends"]
        return tuple(Part(a, b, w) for a, b, w in zip([0, *ends[:-1]], ends, weights, strict=True))

    def held_out(self) -> dict[str, tuple[np.ndarray, int]]:
        """For each language: its held-out ids and the number of UTF-8 bytes that they spell."""
        return {name: (np.memmap(self.folder / f"held_out.{name}.bin", dtype=self.manifest["dtype"], mode="r"),
                       facts["bytes"])
                for name, facts in self.manifest["held_out"].items()}

    def documents(self, ids: np.ndarray) -> list[np.ndarray]:
        """Ids of this folder, cut where documents begin."""
        if "bos" not in self.manifest:
            raise DataError(f"{self.folder} was made before manifests said where documents begin: remove the folder "
                            "and prepare the data again")
        return np.split(ids, document_starts(ids, self.manifest["bos"], self.manifest["eos"])[1:])

    def verify(self, again: bool = True) -> int:
        """Compare each file's SHA-256 with the manifest; DataError names the first that differs. Returns bytes read.

        `again=False` skips files that were right before and have the same size and time since.
        """
        check_sizes(self.folder, self.manifest["files"])
        return check_sums(self.folder, self.manifest["files"], again)


def open_shards(folder: Path) -> Shards:
    """Open a folder that `write_shards` made; sizes are checked against the manifest, bytes only by `verify`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder} holds no token shards (manifest.json is missing): prepare the data again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'manifest.json'} is damaged ({type(error).__name__}: {error}): remove the folder "
                        "and prepare the data again") from error
    check_sizes(folder, files)
    return Shards(folder, manifest)


def prepare(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, cache: Path, workers: int = 2,
            mend: bool = False) -> Shards:
    """Token shards for a corpus, made once and found again in `cache` while sources and tokenizer are the same.

    `mend` makes shards that were damaged since once more; without it they are a DataError.
    """
    folder = cache / _key(corpus, recipe_folder, tokenizer_path)[:16]
    if (folder / "manifest.json").exists():
        try:
            shards = open_shards(folder)
            shards.verify(again=False)
            return shards
        except DataError as error:
            if not mend:
                raise
            warn(f"{error}; this is done now")
            shutil.rmtree(folder)
    return prepare_into(folder, corpus, recipe_folder, tokenizer_path, workers)


def prepare_into(folder: Path, corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, workers: int,
                 work: Path | None = None) -> Shards:
    """Token shards for a corpus in `folder`, written whole or not at all.

    `work` is a folder that is kept where the run is stopped, and in which the next run finds what was done already; the
    clean documents and their report then go into `folder` too.
    """
    key = _key(corpus, recipe_folder, tokenizer_path)
    Tokenizer.load(tokenizer_path)                       # a wrong path is better known before the work than after it
    ready, report = prepared(corpus, recipe_folder, work / "prepared" if work and corpus.prepare else None, workers)
    with explained(folder), atomic_folder(folder) as temporary:
        parts = work / f"tokens-{key[:16]}" if work else temporary / ".tokens"
        write_shards(ready, recipe_folder, tokenizer_path, temporary, workers, key, parts, report)
        if work:
            if report:
                shutil.copytree(work / "prepared", temporary, dirs_exist_ok=True)
            shutil.rmtree(work)
    return open_shards(folder)


def write_shards(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, out: Path, workers: int, key: str,
                 parts: Path, report: dict[str, Any] | None = None) -> None:
    """Tokenise every source into `out`; the result doesn't depend on the number of workers.

    Ids wait in the folder `parts` until their order is known, so that no corpus has to fit into memory.
    """
    tokenizer = Tokenizer.load(tokenizer_path)
    dtype = "<u2" if tokenizer.vocab_size <= 65_536 else "<u4"
    width = int(dtype[-1])
    train: list[tuple[int, float, Ids]] = []             # (source, shuffle key, ids)
    held: dict[str, list[Ids]] = {}
    held_bytes: Counter[str] = Counter()
    sources = []
    parts.mkdir(parents=True, exist_ok=True)
    files = [f for s in corpus.sources for f in files_below(source_path(corpus, s, recipe_folder))]
    with _pool(workers, tokenizer_path, dtype) as pool, progress("tokenising", files) as bar:
        for number, source in enumerate(corpus.sources):
            counts: Counter[str] = Counter()
            for text, copies, ids in _encoded(corpus, source, number, recipe_folder, parts, pool, bar, 2 * workers):
                size = len(text.encode("utf-8"))
                if copies:
                    name = f"{corpus.seed}/order/{source.path}/{counts['documents']}"
                    train += [(number * corpus.weighted, uniform(f"{name}/{c}"), ids) for c in range(copies)]
                    counts.update(documents=1, bytes=size, tokens=ids[2] // width,
                                  tokens_with_repeats=copies * ids[2] // width)
                elif counts["held_out_bytes"] < corpus.held_out_bytes:
                    held.setdefault(source.language, []).append(ids)
                    held_bytes[source.language] += size
                    counts.update(held_out_documents=1, held_out_bytes=size)
                else:
                    counts.update(held_out_unused_documents=1, held_out_unused_bytes=size)
            sources.append({**source.model_dump(exclude={"weight"}), **counts})
            say(f"  {source.path}: {counts['documents']:,} documents, {counts['bytes'] / 1e6:.1f} MB, "
                f"{counts['tokens_with_repeats'] / 1e6:.2f} M tokens with repeats")
    if not train:
        raise DataError("the sources of this recipe hold no text to train on: check paths and epochs"
                        + (f"; of {report['total']['documents']} documents, these were dropped: "
                           f"{report['total']['dropped']}: change data.prepare" if report else ""))
    train.sort(key=lambda document: document[:2])
    _write_ids(out / "train.bin", (ids for _, _, ids in train))
    for language, found in held.items():
        _write_ids(out / f"held_out.{language}.bin", found)
    facts: dict[str, Any] = {"key": key, "dtype": dtype, "vocab_size": tokenizer.vocab_size,
                             "tokenizer": tokenizer.fingerprint, "bos": tokenizer.bos_id,
                             "eos": next(iter(tokenizer.eos_ids), None)}
    if corpus.weighted:
        facts["ends"] = np.cumsum([s.get("tokens_with_repeats", 0) for s in sources]).tolist()
    _write_manifest(out, facts, sources, held, held_bytes, report)
    shutil.rmtree(parts)


def _write_ids(path: Path, documents: Iterable[Ids]) -> None:
    """Opened for each document: as many open files as there are parts would be more than a process may have."""
    with open(path, "wb") as out:
        for part, start, n_bytes in documents:
            with open(part, "rb") as file:
                file.seek(start)
                out.write(file.read(n_bytes))


def _write_manifest(out: Path, facts: dict[str, Any], sources: list[dict[str, Any]], held: dict[str, list[Ids]],
                    held_bytes: Counter[str], report: dict[str, Any] | None) -> None:
    files: dict[str, dict[str, Any]] = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)}
                                        for f in sorted(out.glob("*.bin"))}
    width = int(facts["dtype"][-1])
    done = {"prepared": {k: v for k, v in report.items() if k != "examples"}} if report else {}
    write_json(out / "manifest.json", {
        **facts, "tokens": files["train.bin"]["bytes"] // width, "sources": sources,
        "held_out": {name: {"bytes": held_bytes[name], "documents": len(found),
                            "tokens": sum(n for _, _, n in found) // width} for name, found in sorted(held.items())},
        "files": files, **done})


def _encoded(corpus: Corpus, source: Source, number: int, folder: Path, parts: Path, pool: ProcessPoolExecutor,
             bar: Bar, most: int) -> Iterator[tuple[str, int, Ids]]:
    """(document, copies, ids) in order; batches whose ids are on the disk already aren't encoded again."""
    waiting: deque[tuple[list[tuple[str, int]], Path, Future[None] | None]] = deque()

    def first() -> Iterator[tuple[str, int, Ids]]:
        batch, path, future = waiting.popleft()
        if future:
            future.result()
        ids = np.load(path, mmap_mode="r")
        begin = ids.offset                               # of the values in the file, after its header
        ends = [begin + end * ids.itemsize for end in np.load(path.with_suffix(".ends.npy")).tolist()]
        for (text, copies), start, end in zip(batch, [begin, *ends[:-1]], ends, strict=True):
            yield text, copies, (path, start, end - start)

    documents = bar.count(split(corpus, source, folder, bar.watch))
    for i, batch in enumerate(cut(documents, lambda document: len(document[0]), BATCH_CHARACTERS)):
        path = parts / f"{number:03d}-{i:06d}.npy"
        waiting.append((batch, path, None if path.exists() else pool.submit(_encode, [t for t, _ in batch], path)))
        if len(waiting) > most:
            yield from first()
    while waiting:
        yield from first()


def _key(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path) -> str:
    """Changes with the corpus settings, the size and time of any source file, and the tokenizer's bytes."""
    unread: dict[str, Any] = {**NO_WEIGHTS, "root": True, "prepare": HOW_ONLY if corpus.prepare else True}
    facts: list[Any] = [corpus.model_dump(exclude=unread)]
    facts += ["weighted"] if corpus.weighted else []     # ids lie in another order; other weights change nothing
    for source in corpus.sources:
        path = source_path(corpus, source, recipe_folder)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        facts += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    if corpus.prepare:
        evaluation = [f for p in corpus.prepare.overlap.files for f in files_below(recipe_folder / corpus.root / p)]
        facts += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in evaluation]
    tokenizer_files = sorted(tokenizer_path.glob("tokenizer*")) if tokenizer_path.is_dir() else [tokenizer_path]
    facts += [sha256(f) for f in tokenizer_files]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


@contextmanager
def _pool(workers: int, tokenizer_path: Path, dtype: str) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(str(tokenizer_path), dtype))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_tokenizer: Tokenizer | None = None                                      # one for each worker process
_dtype = "<u4"


def _start_worker(path: str, dtype: str) -> None:
    global _tokenizer, _dtype
    _tokenizer, _dtype = Tokenizer.load(path), dtype
    leave_with_parent()


def _encode(texts: list[str], path: Path) -> None:
    """Write a batch's ids, and after which of them each document ends; the ids come last and mark it as done."""
    assert _tokenizer is not None
    encoded = [_tokenizer.encode(text, bos=True, eos=True) for text in texts]
    for file, values in ((path.with_suffix(".ends.npy"), np.cumsum([len(ids) for ids in encoded])),
                         (path, np.array([i for ids in encoded for i in ids], dtype=_dtype))):
        with atomic_path(file) as temporary, open(temporary, "wb") as stream:
            np.save(stream, values)
