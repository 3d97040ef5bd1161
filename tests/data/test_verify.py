"""Damage to prepared data is found and named: a size at once, a flipped bit by the checksums."""

import json
import os
import re

import pytest

from ayllu.cli.main import run
from ayllu.data.corpus import Corpus, Source
from ayllu.data.shards import open_shards, prepare_into
from ayllu.data.verify import STAMP
from ayllu.errors import DataError
from ayllu.text.train import train_sentencepiece

WHEN = 1_700_000_000 * 10**9


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    texts = [f"Rain fell on hill {i}, and the goat ran to the river with {i * 7} songs of the king." for i in range(90)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(train_sentencepiece(texts, 480, 1.0))
    return folder


@pytest.fixture
def shards(raw, tmp_path):
    corpus = Corpus(sources=(Source(path="rows.jsonl", language="en"),), held_out=0.1)
    return prepare_into(tmp_path / "shards", corpus, raw, raw / "tokenizer.model", workers=1)


def flip(path, keep_time=False):
    """Change one bit in the middle, as a bad disk does."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(WHEN, status.st_mtime_ns if keep_time else WHEN))


def test_whole_shards_are_read_once_and_then_by_their_stamp(shards):
    size = sum(f["bytes"] for f in shards.manifest["files"].values())
    assert shards.verify(again=False) == size
    assert shards.verify(again=False) == 0
    assert shards.verify() == size                       # asked for explicitly: every byte again


@pytest.mark.parametrize("name", ["train.bin", "held_out.en.bin"])
def test_a_flipped_bit_is_found_by_verify_only(shards, name):
    shards.verify()
    flip(shards.folder / name)
    opened = open_shards(shards.folder)                  # the size is right
    for again in (False, True):
        with pytest.raises(DataError, match=rf"{re.escape(name)}: the bytes have changed.*prepare the data again"):
            opened.verify(again=again)
    assert not (shards.folder / STAMP).exists()


def test_what_the_stamp_cannot_see_a_full_check_does(shards):
    shards.verify()
    flip(shards.folder / "train.bin", keep_time=True)
    assert shards.verify(again=False) == 0
    with pytest.raises(DataError, match="the bytes have changed"):
        shards.verify()


def test_missing_and_cut_files_and_a_damaged_manifest(shards):
    path = shards.folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"train\.bin: [\d,]+ bytes found, the manifest says [\d,]+"):
        shards.verify()
    path.unlink()
    with pytest.raises(DataError, match=r"train\.bin: the file is missing"):
        open_shards(shards.folder)
    for content in ('{"dtype": "<u', "[]", "{}"):
        (shards.folder / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            open_shards(shards.folder)


def test_a_stamp_that_is_no_json_is_passed_over(shards):
    (shards.folder / STAMP).write_text("[1, 2")
    assert shards.verify(again=False) > 0
    assert json.loads((shards.folder / STAMP).read_text())["train.bin"]


def test_command_checks_shards_and_clean_documents(raw, tmp_path, capsys):
    out = tmp_path / "out"
    more = [str(raw / "rows.jsonl"), "data.prepare.quality=off", "data.prepare.duplicates.near=false",
            "data.held_out=0.1"]
    assert run(["data", "prepare", *more, "--out", str(out), "--tokenizer", str(raw / "tokenizer.model")]) == 0
    capsys.readouterr()
    assert run(["data", "verify", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["files"] == len(list(out.rglob("*.bin"))) + 1           # and the documents of one source
    flip(next((out / "documents").iterdir()))
    assert run(["data", "verify", str(out)]) == 2
    assert "000-rows.jsonl.zst: the bytes have changed" in capsys.readouterr().err
    assert run(["data", "verify", str(raw)]) == 2
    assert "holds no prepared data" in capsys.readouterr().err
