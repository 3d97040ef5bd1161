"""Progress of reading: every byte of every file is counted once, and where nobody looks, lines say how far it is."""

import gzip
import json
import logging
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from ayllu.data import progress as module
from ayllu.data import shards
from ayllu.data.corpus import Corpus, Source, prepared
from ayllu.data.progress import progress
from ayllu.data.readers import records
from ayllu.text.train import train_sentencepiece


@pytest.fixture
def files(tmp_path):
    lines = "".join(json.dumps({"text": f"{i} {i * i}", "more": "x" * 50}) + "\n" for i in range(5000)).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines)[:-2000])
    (tmp_path / "d.txt").write_bytes(b"one text")
    (tmp_path / "e.txt").write_bytes(b"")
    table = {"text": ["a"] * 1000, "more": [str(i) * 40 for i in range(1000)]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "f.parquet")
    return sorted(tmp_path.iterdir())


def test_all_bytes_are_counted_once(files):
    """Also of a packed file, of one that is cut short, and of columns that aren't read."""
    total = sum(f.stat().st_size for f in files)
    with progress("reading", files) as bar:
        for file in files:
            with bar.watch(file) as moved:
                for _ in bar.count(records(file, ("text",), file.name, moved=moved)):
                    assert bar.n_bytes <= total
            assert bar.n_bytes == sum(f.stat().st_size for f in files[:files.index(file) + 1])
    assert bar.n_documents > 11_000


def test_a_packed_file_moves_while_it_is_read(files):
    with progress("reading", files) as bar, bar.watch(files[1]) as moved:
        seen = {bar.n_bytes for _ in records(files[1], ("text",), "b", moved=moved)}
    assert len(seen) > 1 or files[1].stat().st_size < 2**17


def test_lines_with_rate_and_time_left(files, tmp_path, monkeypatch, caplog):
    """Preparing and tokenising both say them; a clock that jumps makes each move worth a line."""
    clock = iter(range(0, 10**7, 40))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(logging.getLogger("ayllu"), "propagate", True)
    model = tmp_path / "tokenizer.model"
    model.write_bytes(train_sentencepiece([f"{i} squared is {i * i}" for i in range(200)], 460, 1.0))
    corpus = Corpus.model_validate({"root": str(tmp_path), "sources": [Source(path="a.jsonl")], "prepare": {
        "quality": "off", "identify": False, "duplicates": {"near": False}}})
    with caplog.at_level(logging.INFO, "ayllu"):
        ready, _ = prepared(corpus, tmp_path, tmp_path / "clean", workers=1)
        shards.prepare_into(tmp_path / "shards", ready, tmp_path, model, 1)
    for what in ("preparing", "tokenising"):
        (line, *_) = [m for m in caplog.messages if m.startswith(what)]
        assert " MB/s, " in line
        assert " left" in line
        assert line.startswith(f"{what}: ")
        assert "% of " in line
