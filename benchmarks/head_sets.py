"""The ten sets of heads.py: which rows are learned, held out and tested on, and which sets go together.

Each set keeps its own split; where it has one file, every fifth row by a fixed hash of the text is tested on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ayllu.data.labelled import Labelled, position
from ayllu.data.readers import columns, records
from ayllu.data.rows import Reject
from ayllu.errors import DataError
from ayllu.log import say
from ayllu.train.heads_lesson import as_words

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {                                                 # set: its files to train and to test on, None: a hash decides
    "trec": ("train", "test"), "sst2": ("train", "test"), "tnews": ("train", "test"), "movie_reviews": ("train", None),
    "chnsenticorp_htl": ("train", None), "waimai_10k": ("train", None), "ag_news_test": ("test", None),
    "banking77": ("train", "test"), "clinc150": ("train", "test"), "online_shopping_10_cats": ("train", None)}
RELATED = {                                              # set: others with its labels, for --related
    "sst2": ("movie_reviews",), "movie_reviews": ("sst2",),
    "chnsenticorp_htl": ("online_shopping_10_cats", "waimai_10k"),
    "waimai_10k": ("online_shopping_10_cats", "chnsenticorp_htl"),
    "online_shopping_10_cats": ("waimai_10k", "chnsenticorp_htl")}
GROUPS = {                                               # kind of texts: its sets, which may share an adapted base
    "reviews_zh": ("online_shopping_10_cats", "waimai_10k", "chnsenticorp_htl"),
    "reviews_en": ("movie_reviews", "sst2"), "news_en": ("ag_news_test",), "news_zh": ("tnews",),
    "questions_en": ("banking77", "clinc150", "trec")}
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")              # where one ends, in texts without capital letters
CHINESE = {"tnews", "chnsenticorp_htl", "waimai_10k", "online_shopping_10_cats"}
Split = tuple[list[Labelled], list[Labelled]]


def load(name: str, data: Path, quick: bool) -> Split:
    """The rows to learn and those to test."""
    train, test = (None if part is None else _read(data / name / f"{part}.jsonl.zst") for part in SETS[name])
    assert train is not None
    if test is None:
        train, test = [[r for r in train if (position(r.text) < 0.2) is tested] for tested in (False, True)]
    return (train[::len(train) // 200], test[::len(test) // 100]) if quick else (train, test)


def related(name: str, split: Split, data: Path) -> list[Labelled]:
    """The rows to learn of related sets, each sentence of a long English review by itself; those of which a third of
    the runs of 10 characters stands in this set are left out, since some sets have reviews of each other."""
    known = {run for part in split for row in part for run in runs_of_ten(row.text)}
    rows = [row for other in RELATED[name] for row in load(other, data, False)[0]]
    if "movie_reviews" in RELATED[name]:
        rows = [replace(row, text=text) for row in rows for text in SENTENCE.split(str(row.text))
                if len(text.split()) > 3]
    kept = [row for row in rows if 3 * sum(run in known for run in runs_of_ten(row.text)) < len(runs_of_ten(row.text))]
    say(f"{name}: {len(kept):,} related rows; {len(rows) - len(kept):,} more are much like its own and left out")
    return kept


def runs_of_ten(text: str | tuple[str, ...]) -> set[str]:
    """Its runs of 10 characters, without case, spaces and punctuation; a shorter text is one."""
    text = as_words(text)
    return {text[i:i + 10] for i in range(max(len(text) - 9, 1))}


def _read(file: Path) -> list[Labelled]:
    """As `read_labelled`; a title stands above its text."""
    return [Labelled(file.name, n, text_of(row), str(row["label"])) for n, row in _rows(file)]


def read(file: Path) -> list[str]:
    """Texts without labels."""
    return [text_of(row) for _, row in _rows(file)]


def text_of(row: dict[str, Any]) -> str:
    """As it is read."""
    return f"{row['title']}\n{row['text']}" if "title" in row else str(row["text"])


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for record in records(file, (), file.name):
        if isinstance(record, Reject):
            raise DataError(f"{record.file}, row {record.line}: {record.reason}")
        yield record.line, columns(record)


def parted(rows: Sequence[Labelled]) -> Split:
    """The training rows that are learned, and those that are held out."""
    held = [position(f"held out {row.text}") < 0.1 for row in rows]
    return ([row for row, out in zip(rows, held, strict=True) if not out],
            [row for row, out in zip(rows, held, strict=True) if out])
