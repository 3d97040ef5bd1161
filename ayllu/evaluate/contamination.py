"""Did the training text hold the items? Runs of 13 words (or Chinese characters) that both have, as GPT-3 was checked.

An item is dirty where any run of its prompt or answers is in the training text (Brown et al. 2020, arXiv:2005.14165,
appendix C); the score of the clean ones stands beside that of all. Examples are no part of an item.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ayllu.data.folders import files_below
from ayllu.data.overlap import index
from ayllu.data.readers import columns
from ayllu.data.shards import open_shards
from ayllu.data.texts import each_row
from ayllu.data.units import hash_ngrams, unit_hashes
from ayllu.errors import DataError
from ayllu.evaluate.task import Item
from ayllu.files import cache_folder
from ayllu.log import say, warn
from ayllu.text.tokenizer import Tokenizer

RUN = 13                                                 # units
EVERY = 20_000                                           # documents between lines


@dataclass(frozen=True)
class Overlap:
    """What was found of one task. Items with no run of their own can't be checked."""

    dirty: frozenset[str]
    n_short: int
    n_items: int

    def table(self) -> dict[str, int]:
        """As scores.json has it."""
        return {"checked": self.n_items - self.n_short, "dirty": len(self.dirty), "too_short": self.n_short}


def trained_on(model: Path) -> list[Path]:
    """The shards or files that a model's data.json names, where they are still there."""
    folder = model if model.is_dir() else model.parent
    try:
        data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if isinstance(data.get("key"), str):
        shards = cache_folder() / "shards" / data["key"][:16]
        return [shards] if (shards / "manifest.json").is_file() else []
    recipe = folder.parent / "config.json"               # a fine-tuned model lies in its run
    config = json.loads(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {}
    told = config.get("data") or data                    # the recipe's leave out what was held out
    root = Path(config.get("folder") or ".") / str(told.get("root") or "")
    found = [root / str(source["path"]) for source in told.get("sources", []) if "path" in source]
    if missing := [path for path in found if not path.exists()]:
        warn(f"{folder / 'data.json'} names {missing[0]}, which isn't there: it isn't checked")
    return [path for path in found if path.exists()]


def training_texts(paths: Sequence[Path], tokenizer: Tokenizer) -> Iterator[str]:
    """Documents of shards, or every string of every row of files."""
    for path in paths:
        if (path / "manifest.json").is_file():
            shards = open_shards(path)
            if shards.manifest.get("tokenizer") != tokenizer.fingerprint:
                raise DataError(f"{path} was made with another tokenizer than the model's: name the shards that it was "
                                "trained on")
            yield from (tokenizer.decode(ids.tolist(), skip_special=True) for ids in shards.documents(shards.train()))
        else:
            for file in files_below(path):
                yield from _strings(file)


def overlaps(tasks: Mapping[str, Sequence[Item]], texts: Iterable[str], n: int = RUN) -> dict[str, Overlap]:
    """Which items of each task share a run of n units with any of the texts."""
    known, _ = index((text for items in tasks.values() for item in items for text in _texts(item)), n)
    seen = np.zeros(len(known), dtype=bool)
    for number, text in enumerate(texts, start=1):
        grams = hash_ngrams(unit_hashes(text), n)
        if len(known) and len(grams):
            places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
            seen[places[known[places] == grams]] = True
        if number % EVERY == 0:
            say(f"contamination: {number:,} training documents read")
    return {name: _found(items, known, seen, n) for name, items in tasks.items()}


def _found(items: Sequence[Item], known: np.ndarray, seen: np.ndarray, n: int) -> Overlap:
    dirty, short = set(), 0
    for item in items:
        grams = np.concatenate([hash_ngrams(unit_hashes(text), n) for text in _texts(item)])
        short += len(grams) == 0
        if len(grams) and seen[np.searchsorted(known, grams)].any():
            dirty.add(item.id)
    return Overlap(frozenset(dirty), short, len(items))


def _texts(item: Item) -> list[str]:
    answers = item.expected if isinstance(item.expected, list) else []
    return [item.prompt, *item.options, *(a for a in answers if isinstance(a, str))]


def _strings(file: Path) -> Iterator[str]:
    for _, row in each_row(file, (), columns, hint=""):
        yield from _inside(row)


def _inside(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for one in value.values():
                yield from _inside(one)
        case list():
            for one in value:
                yield from _inside(one)
