"""Counts that add up for any rows, and runs that end in the middle: a full disk, a killed worker, files that change."""

import gzip
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ayllu.cli.main import run
from ayllu.data import part, prepare, readers, rows, shards
from ayllu.data.corpus import Corpus, Source
from ayllu.data.part import Preparation
from ayllu.data.prepare import Raw, prepare_documents
from ayllu.errors import DataError
from ayllu.text.train import train_sentencepiece

WORDS = ("the", "of", "and", "to", "that", "with", "fox", "river", "star", "hill", "oak", "bread", "book", "friend",
         "rain", "boat")
GOOD = st.integers(0, 30).map(lambda i: " ".join(f"{WORDS[(i * k) % 16]} x{i}y{k}" for k in range(1, 40)))
ROW = st.one_of(
    GOOD.map(lambda text: json.dumps({"text": text})),                   # drawn from 31, so that doubles are common
    st.sampled_from(["{broken", '{"body": "x"}', '["a"]', '{"text": 3}', '{"text": ""}', '{"text": "short"}',
                     '{"text": "' + "lorem ipsum the of " * 30 + '"}', "null", '{"text": "' + "z" * 3000 + '"}']),
).map(str.encode) | st.sampled_from([b'{"text": "\xff\xfe"}', b"\x00", b'{"text": "\xd6\xd0\xce\xc4"}'])
FILES = st.lists(st.tuples(st.lists(ROW, max_size=12), st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst"])),
                 min_size=1, max_size=4)


class Here:
    """In place of a pool of processes: each part at once."""

    def __init__(self, how, known):
        self.how, self.known = how, known

    def submit(self, _, item):
        done = Future()
        done.set_result(part.process(item, self.how, self.known))
        return done


@contextmanager
def pool_here(workers, how, known):
    yield Here(how, known)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, part_bytes=st.sampled_from([1, 700, 10**6]), near=st.booleans(), languages=st.booleans())
def test_rows_read_are_kept_dropped_or_rejected(tmp_path_factory, files, part_bytes, near, languages):
    place = tmp_path_factory.mktemp("rows")
    (place / "in").mkdir()
    n_rows = 0
    for i, (found, suffix) in enumerate(files):
        data = b"".join(row + b"\n" for row in found)
        pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}[suffix]
        (place / "in" / f"{i}{suffix}").write_bytes(pack(data))
        n_rows += len(found)
    how = Preparation.model_validate({"part_bytes": part_bytes, "duplicates": {"near": near},
                                      "languages": ["en"] if languages else []})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_pool", pool_here)
        patch.setattr(readers, "ROW_BYTES", 2000)
        report = prepare_documents([Raw(place / "in", "in", ("text",))], [], how, place / "out", 1)
    total = report["total"]
    assert n_rows == total.get("documents", 0) + total.get("rejected", 0)
    assert total.get("documents", 0) == total.get("kept", 0) + sum(total["dropped"].values())
    assert len((place / "out" / "rejects.jsonl").read_text().splitlines()) == total.get("rejected", 0)
    with zstandard.open(place / "out" / report["sources"][0]["file"], "rt", encoding="utf-8") as kept:
        assert len(list(kept)) == total.get("kept", 0)


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def story(i):
    return " ".join(f"{WORDS[(i * k) % 16]} and the {hashlib.sha1(f'{i}/{k}'.encode()).hexdigest()[:9]}"
                    for k in range(60))


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": story(i)}) + "\n" for i in range(400)),
                                       encoding="utf-8")
    return tmp_path / "in.jsonl"


OVERRIDES = ("data.prepare.quality=off", "data.prepare.part_bytes=40000", "data.prepare.identify=false")


def test_a_disk_that_fills_up_loses_nothing(raw, tmp_path):
    """A limit on the size of files stands for the full disk: the kernel refuses the write in the same way."""
    command = [sys.executable, "-m", "ayllu", "data", "prepare", str(raw), *OVERRIDES]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    assert run([*command[3:], "--out", str(tmp_path / "whole")]) == 0
    full = subprocess.run([*command, "--out", str(tmp_path / "full")], capture_output=True, text=True, timeout=120,
                          env=environment, preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert "error: no room on the disk (File too large): make some; finished parts are kept" in full.stderr
    assert not (tmp_path / "full").exists()
    assert len(list((tmp_path / ".full.parts").glob("*.zst"))) > 5
    assert run([*command[3:], "--out", str(tmp_path / "full")]) == 0
    assert digest(tmp_path / "full") == digest(tmp_path / "whole")


def test_no_room_for_ids(raw, tmp_path, monkeypatch):
    model = tmp_path / "tokenizer.model"
    model.write_bytes(train_sentencepiece([story(i) for i in range(60)], 480, 1.0))
    corpus = Corpus(root=str(tmp_path), sources=(Source(path=raw.name),))
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 50_000)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "_write_ids", refuse)
    with pytest.raises(DataError, match="no room on the disk"):
        shards.prepare_into(tmp_path / "cut", corpus, tmp_path, model, 1, tmp_path / "work")
    monkeypatch.undo()
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 50_000)
    assert not (tmp_path / "cut").exists()
    shards.prepare_into(tmp_path / "cut", corpus, tmp_path, model, 1, tmp_path / "work")
    shards.prepare_into(tmp_path / "whole", corpus, tmp_path, model, 1, tmp_path / "work")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_more_parts_than_a_process_may_have_open_files(raw, tmp_path, monkeypatch):
    """A corpus of a gigabyte has a thousand parts; at most systems a process may open 1,024 files."""
    model = tmp_path / "tokenizer.model"
    model.write_bytes(train_sentencepiece([story(i) for i in range(60)], 480, 1.0))
    corpus = Corpus(root=str(tmp_path), sources=(Source(path=raw.name),))
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 4000)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, before[1]))
    try:
        made = shards.prepare_into(tmp_path / "out", corpus, tmp_path, model, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert sum(s["documents"] for s in made.manifest["sources"]) + made.manifest["held_out"]["und"]["documents"] == 400


def end(_):
    """As the kernel ends a process when the memory is full."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_explained(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_process", end)
    with pytest.raises(DataError, match=r"a worker process was ended from outside.*fewer --workers"):
        prepare_documents([Raw(raw, "in.jsonl", ("text",))], [], Preparation(), tmp_path / "out", 1)


def test_files_that_change_while_they_are_read(raw, tmp_path, monkeypatch):
    """Said, noted in the report, and prepared again by the next run."""
    source = [Raw(raw, "in.jsonl", ("text",))]
    how = Preparation.model_validate({"quality": None, "identify": False})
    real = prepare._write

    def write_and_grow(*arguments):
        found = real(*arguments)
        with open(raw, "a", encoding="utf-8") as file:
            file.write(json.dumps({"text": story(1000)}) + "\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write", write_and_grow)
        first = prepare_documents(source, [], how, tmp_path / "out", 1)
    assert first["changed_while_read"] == [str(raw)]
    second = prepare_documents(source, [], how, tmp_path / "out", 1)
    assert "changed_while_read" not in second
    assert second["total"]["kept"] == first["total"]["kept"] + 1


def test_files_that_vanish_or_shrink_while_they_are_read(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.jsonl").write_text("".join(json.dumps({"text": story(100 * i + k)}) + "\n"
                                                            for k in range(40)), encoding="utf-8")
    real = prepare.load_libraries

    def remove(how):
        (tmp_path / "in" / "1.jsonl").unlink()
        os.truncate(tmp_path / "in" / "2.jsonl", 5000)
        real(how)

    monkeypatch.setattr(prepare, "load_libraries", remove)
    monkeypatch.setattr(prepare, "files_below", lambda path: [path / f"{i}.jsonl" for i in range(3)])
    report = prepare_documents([Raw(tmp_path / "in", "in", ("text",))], [], Preparation(quality=None, identify=False),
                               tmp_path / "out", 1)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "rejects.jsonl").open()]
    assert [reason[:31] for reason in reasons] == ["can't be read (No such file or ", "not a JSON object (Unterminated"]
    assert len(report["changed_while_read"]) == 2


def test_five_thousand_small_files(tmp_path):
    """In seconds, with few open files, in nested folders, and each counted."""
    for i in range(5000):
        folder = tmp_path / "in" / f"{i % 50:02d}" / f"{i % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(f"{story(i)[:300]}", encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, before[1]))
    start = time.process_time()
    try:
        report = prepare_documents([Raw(tmp_path / "in", "in", ("text",))], [],
                                   Preparation(quality=None, identify=False,
                                               duplicates={"near": False}), tmp_path / "out", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert report["total"]["documents"] == 5000
    assert time.process_time() - start < 30              # about 3 s, without the worker's; more would be quadratic


def test_ray_without_preparation_is_refused(tmp_path, capsys):
    recipe = Path(__file__).parents[2] / "recipes" / "mini.toml"
    words = ["data", "prepare", str(recipe), "--out", str(tmp_path / "out"), f"data.root={tmp_path}"]
    assert run([*words, "--ray", "local"]) == 2
    assert "--ray spreads the preparation of documents, and this recipe asks for none" in capsys.readouterr().err


def test_limits_are_those_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"{rows.ROW_BYTES // 2**20} MiB" in page
    assert f"{rows.FILE_BYTES // 2**20} MiB" in page
