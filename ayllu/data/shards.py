"""Token shards: memory-mapped files of ids with a manifest that says what they were made from.

A folder holds `train.bin` (documents in shuffled order, each BOS … EOS), `held_out.<language>.bin` and
`manifest.json`. Ids are little-endian uint16, or uint32 for vocabularies past 65,536.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.data.corpus import Corpus, Source, source_path, split, uniform
from ayllu.errors import DataError
from ayllu.files import atomic_folder, sha256, write_json
from ayllu.log import say
from ayllu.text.tokenizer import Tokenizer

BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Shards:
    """An opened folder of token shards."""

    folder: Path
    manifest: dict[str, Any]

    def train(self) -> np.ndarray:
        """All training ids, memory-mapped: shape (tokens,)."""
        return np.memmap(self.folder / "train.bin", dtype=self.manifest["dtype"], mode="r")

    def held_out(self) -> dict[str, tuple[np.ndarray, int]]:
        """For each language: its held-out ids and the number of UTF-8 bytes that they spell."""
        return {name: (np.memmap(self.folder / f"held_out.{name}.bin", dtype=self.manifest["dtype"], mode="r"),
                       facts["bytes"])
                for name, facts in self.manifest["held_out"].items()}


def open_shards(folder: Path) -> Shards:
    """Open a folder that `write_shards` made; sizes are checked against the manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no token shards (manifest.json is missing): prepare the data again") from error
    for name, facts in manifest["files"].items():
        size = (folder / name).stat().st_size if (folder / name).exists() else -1
        if size != facts["bytes"]:
            raise DataError(f"{folder / name}: {size} bytes found, the manifest says {facts['bytes']}: "
                            "remove the folder and prepare the data again")
    return Shards(folder, manifest)


def prepare(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, cache: Path, workers: int = 2) -> Shards:
    """Token shards for a corpus, made once and found again in `cache` while sources and tokenizer are the same."""
    folder = cache / _key(corpus, recipe_folder, tokenizer_path)[:16]
    if (folder / "manifest.json").exists():
        return open_shards(folder)
    return prepare_into(folder, corpus, recipe_folder, tokenizer_path, workers)


def prepare_into(folder: Path, corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, workers: int) -> Shards:
    """Token shards for a corpus in `folder`, written whole or not at all."""
    key = _key(corpus, recipe_folder, tokenizer_path)
    with atomic_folder(folder) as temporary:
        write_shards(corpus, recipe_folder, tokenizer_path, temporary, workers, key)
    return open_shards(folder)


def write_shards(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path, out: Path, workers: int,
                 key: str) -> None:
    """Tokenise every source into `out`; the result doesn't depend on the number of workers."""
    tokenizer = Tokenizer.load(tokenizer_path)
    dtype = "<u2" if tokenizer.vocab_size <= 65_536 else "<u4"
    train: list[tuple[float, np.ndarray]] = []                           # (shuffle key, ids)
    held: dict[str, list[np.ndarray]] = {}
    held_bytes: Counter[str] = Counter()
    sources = []
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(str(tokenizer_path),)) as pool:
        for source in corpus.sources:
            counts: Counter[str] = Counter()
            batches = list(_batches(corpus, source, recipe_folder))
            for texts_copies, encoded in zip(batches, pool.map(_encode, [[t for t, _ in b] for b in batches]),
                                             strict=True):
                for (text, copies), ids in zip(texts_copies, encoded, strict=True):
                    size = len(text.encode("utf-8"))
                    array = np.array(ids, dtype=dtype)
                    if copies:
                        train += [(uniform(f"{corpus.seed}/order/{source.path}/{counts['documents']}/{c}"), array)
                                  for c in range(copies)]
                        counts.update(documents=1, bytes=size, tokens=len(ids), tokens_with_repeats=copies * len(ids))
                    elif counts["held_out_bytes"] < corpus.held_out_bytes:
                        held.setdefault(source.language, []).append(array)
                        held_bytes[source.language] += size
                        counts.update(held_out_documents=1, held_out_bytes=size)
                    else:
                        counts.update(held_out_unused_documents=1, held_out_unused_bytes=size)
            sources.append({**source.model_dump(), **counts})
            say(f"  {source.path}: {counts['documents']:,} documents, {counts['bytes'] / 1e6:.1f} MB, "
                f"{counts['tokens_with_repeats'] / 1e6:.2f} M tokens with repeats")
    if not train:
        raise DataError("the sources of this recipe hold no text to train on: check paths and epochs")
    train.sort(key=lambda pair: pair[0])
    np.concatenate([ids for _, ids in train]).tofile(out / "train.bin")
    for language, parts in held.items():
        np.concatenate(parts).tofile(out / f"held_out.{language}.bin")
    _write_manifest(out, key, tokenizer, dtype, sources, held, held_bytes)


def _write_manifest(out: Path, key: str, tokenizer: Tokenizer, dtype: str, sources: list[dict[str, Any]],
                    held: dict[str, list[np.ndarray]], held_bytes: Counter[str]) -> None:
    files: dict[str, dict[str, Any]] = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)}
                                        for f in sorted(out.glob("*.bin"))}
    write_json(out / "manifest.json", {
        "key": key, "dtype": dtype, "vocab_size": tokenizer.vocab_size, "tokenizer": tokenizer.fingerprint,
        "tokens": files["train.bin"]["bytes"] // int(dtype[-1]), "sources": sources,
        "held_out": {name: {"bytes": held_bytes[name], "documents": len(parts),
                            "tokens": sum(len(p) for p in parts)} for name, parts in sorted(held.items())},
        "files": files})


def _batches(corpus: Corpus, source: Source, folder: Path) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    characters = 0
    for text, copies in split(corpus, source, folder):
        batch.append((text, copies))
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _key(corpus: Corpus, recipe_folder: Path, tokenizer_path: Path) -> str:
    """Changes with the corpus settings, the size and time of any source file, and the tokenizer's bytes."""
    facts: list[Any] = [corpus.model_dump(exclude={"root"})]
    for source in corpus.sources:
        path = source_path(corpus, source, recipe_folder)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        facts += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    tokenizer_files = sorted(tokenizer_path.glob("tokenizer*")) if tokenizer_path.is_dir() else [tokenizer_path]
    facts += [sha256(f) for f in tokenizer_files]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


_tokenizer: Tokenizer | None = None                                      # one for each worker process


def _start_worker(path: str) -> None:
    global _tokenizer
    _tokenizer = Tokenizer.load(path)


def _encode(texts: list[str]) -> list[list[int]]:
    assert _tokenizer is not None
    return [_tokenizer.encode(text, bos=True, eos=True) for text in texts]
