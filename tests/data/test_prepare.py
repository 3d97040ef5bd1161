"""`ayllu data prepare`: every step counted, the same bytes for any number of workers and after any interruption."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from forked import ayllu

from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.resolve import BUNDLED
from ayllu.cli.main import run
from ayllu.data.corpus import Corpus, Source, prepared, split, vocabulary_texts
from ayllu.data.part import Preparation
from ayllu.data.prepare import Raw, prepare_documents
from ayllu.data.shards import open_shards, prepare_into
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

NOUNS = ["fox", "bird", "river", "star", "hill", "oak", "bread", "book", "friend", "rain", "boat", "road", "lamp",
         "king", "queen", "goat", "song", "house", "field", "wind", "snow", "moon", "tree", "fish", "wolf", "wall"]
LINKS = ["and the", "of", "to", "that", "with", "or", "under", "over", "near", "saw", "was", "behind one", "beside my"]
ODD = [{"text": "short"}, {"body": "x"}, {"text": "same same and the of to " * 30}]


def story(i):
    draw = random.Random(i)
    body = " ".join(f"{draw.choice(NOUNS)} {draw.choice(LINKS)} {draw.choice(NOUNS)}" for _ in range(40))
    return f"Story {i}: the {body} ended. Write to reader{i}@example.org.\r\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    rows = [{"text": story(i)} for i in range(150)]
    rows[60:60] = [*ODD, rows[3], {"text": rows[5]["text"].upper()}, {"text": rows[7]["text"] + " One more word."}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "{broken\n", encoding="utf-8")
    (folder / "more").mkdir()
    (folder / "more" / "a.html").write_text(f"<nav>menu</nav><p>{story(3)}</p>", encoding="utf-8")      # a double
    (folder / "more" / "b.txt").write_text(story(901), encoding="utf-8")
    (folder / "eval.jsonl").write_text(json.dumps({"text": story(8)}) + '\n{"text": "too short"}\n', encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(train_sentencepiece([story(i) for i in range(50)], 480, 1.0))
    return folder


def corpus(raw, **changes):
    settings = {"overlap": {"files": ["eval.jsonl"]}, "part_bytes": 3000, **changes}
    return Corpus(root=str(raw), sources=(Source(path="rows.jsonl", licence="CC0-1.0", language="en"),
                                          Source(path="more", language="en")),
                  prepare=Preparation.model_validate(settings), held_out=0.1)


def documents(folder, name):
    with zstandard.open(folder / "documents" / name, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def test_each_step_is_counted_with_examples(raw, tmp_path):
    _, report = prepared(corpus(raw), raw, tmp_path / "out", workers=1)
    first, second = report["sources"]
    for rule, n in {"duplicate.exact": 2, "duplicate.near": 1, "min_words": 1, "overlap": 1}.items():
        assert first["dropped"][rule] == n, first["dropped"]
    assert first["documents"] == first["kept"] + sum(first["dropped"].values())
    assert (first["documents"], first["rejected"]) == (155, 2)
    assert second["dropped"] == {"duplicate.exact": 1}   # across sources and formats: the first one stays
    assert first["changed"]["line_ends"] == 153
    assert report["total"]["personal_data"]["email"] == first["personal_data"]["email"] + 2
    assert report["evaluation"]["texts_too_short"] == 1
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"]) for r in rejects] == [("rows.jsonl", 62), ("rows.jsonl", 157)]
    near = report["examples"]["duplicate.near"][0]
    assert (near["where"], near["like"]) == ("rows.jsonl:66", "rows.jsonl:8")
    kept = documents(tmp_path / "out", "000-rows.jsonl.zst")
    assert len(kept) == first["kept"]
    assert "reader0@" not in kept[0]["text"]
    assert "[EMAIL]" in kept[0]["text"]
    assert "example.org" not in (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert {row["language"] for row in kept} == {"en"}


def test_report_only_and_off(raw, tmp_path):
    _, report = prepared(corpus(raw, overlap={"files": ["eval.jsonl"], "action": "report"}, quality="off",
                                personal_data="keep", duplicates={"near": False}), raw, tmp_path / "out", workers=1)
    assert report["total"]["overlapping"] == 1
    assert report["total"]["dropped"] == {"duplicate.exact": 3}
    assert report["total"]["personal_data"] == {}


def test_other_languages_are_dropped(tmp_path):
    (tmp_path / "a.txt").write_text(story(1), encoding="utf-8")
    _, report = prepared(Corpus(root=str(tmp_path), sources=(Source(path="a.txt"),),
                                prepare=Preparation(languages=("zh",))), tmp_path, tmp_path / "out", workers=1)
    assert report["total"]["dropped"] == {"language.en": 1}


@pytest.mark.parametrize("workers", [2, 4])
def test_same_bytes_for_any_number_of_workers(raw, tmp_path, workers):
    prepared(corpus(raw), raw, tmp_path / "one", workers=1)
    prepared(corpus(raw, part_bytes=20_000), raw, tmp_path / "more", workers=workers)
    assert digest(tmp_path / "one") == digest(tmp_path / "more")


def test_a_finished_result_is_found_again_and_changed_inputs_are_noticed(raw, tmp_path):
    prepared(corpus(raw), raw, tmp_path / "out", workers=1)
    mark = (tmp_path / "out" / "report.json").stat().st_mtime_ns
    prepared(corpus(raw), raw, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "report.json").stat().st_mtime_ns == mark
    _, report = prepared(corpus(raw, quality={"min_words": 1000}), raw, tmp_path / "out", workers=1)
    assert report["total"]["dropped"]["min_words"] > 100


def test_finished_parts_are_not_done_again(raw, tmp_path, monkeypatch):
    settings = corpus(raw).prepare
    source = [Raw(raw / "rows.jsonl", "rows.jsonl", ("text",))]
    prepare_documents(source, [], settings, tmp_path / "whole", 1)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ayllu.data.prepare.write_json", stop)           # everything is done but the last step
    with pytest.raises(KeyboardInterrupt):
        prepare_documents(source, [], settings, tmp_path / "cut", 1)
    monkeypatch.undo()
    parts = sorted((tmp_path / ".cut.parts").glob("*.zst"))
    assert len(parts) > 5
    assert not (tmp_path / "cut").exists()
    parts[2].unlink()
    times = {p: p.stat().st_mtime_ns for p in parts if p.exists()}
    done = []
    monkeypatch.setattr("ayllu.data.prepare.shutil.rmtree", lambda *a, **k: done.append(
        {p: p.stat().st_mtime_ns for p in times}))
    prepare_documents(source, [], settings, tmp_path / "cut", 1)
    assert done[-1] == times                             # the others were left as they were
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_shards_do_not_say_how_they_were_made(raw, tmp_path):
    """The size of parts, and likewise Ray, changes no byte of the manifest either."""
    def shards(part_bytes):
        place = tmp_path / str(part_bytes)
        prepare_into(place, corpus(raw, part_bytes=part_bytes), raw, raw / "tokenizer.model", 1, tmp_path / "work")
        return digest(place)

    assert shards(3000) == shards(20_000)


def test_parts_of_another_size_are_not_taken_over(raw, tmp_path, monkeypatch):
    """Parts are numbered: those of a run that cut elsewhere would stand for other rows."""
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ayllu.data.prepare.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(corpus(raw), raw, tmp_path / "cut", workers=1)
    monkeypatch.undo()
    prepared(corpus(raw, part_bytes=9000), raw, tmp_path / "cut", workers=1)
    prepared(corpus(raw), raw, tmp_path / "whole", workers=1)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_against_finds_planted_sentences_of_wikitext(tmp_path, capsys):
    """Documents with a sentence of the evaluation text are dropped, those with a shorter run of it stay."""
    path = Path(__file__).parents[3] / "shared" / "data" / "wikitext2" / "test.txt.zst"
    if not path.exists():
        pytest.skip("shared/data/wikitext2 is missing")
    with zstandard.open(path, "rt", encoding="utf-8") as stream:
        lines = [line.split() for line in stream if len(line.split()) > 60 and "<unk>" not in line][:12]
    assert len(lines) == 12
    rows = [story(i) + (" ".join(lines[i // 3][20:34]) if i % 3 == 0 else " ".join(lines[i // 3][20:28]))
            for i in range(36)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in rows), encoding="utf-8")
    assert run(["data", "prepare", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--json",
                "--against", str(path)]) == 0
    total = json.loads(capsys.readouterr().out.splitlines()[-1])["prepared"]["total"]
    examples = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["examples"]
    assert {int(row["where"].rpartition(":")[2]) % 3 for row in examples["overlap"]} == {1}
    assert 8 <= total["dropped"]["overlap"] <= 12        # marks such as @-@ and commas are no words


def test_tokenizers_and_pretraining_see_prepared_texts_only(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts = list(vocabulary_texts(corpus(raw), raw))
    assert texts
    assert not any("@example.org" in t for t in texts)
    ready, _ = prepared(corpus(raw), raw)                # from the cache
    assert sum(len(list(split(ready, s, raw))) for s in ready.sources) > 140


PREPARE = ("data", "prepare")


def started(*words):
    command = [sys.executable, "-m", "ayllu", *PREPARE, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def words(raw, out):
    return (raw / "rows.jsonl", raw / "more", "--out", out, "--tokenizer", raw / "tokenizer.model", "--json",
            "--licence", "CC0-1.0", "--language", "en", "data.prepare.part_bytes=2000", "data.held_out=0.1")


@pytest.mark.slow
def test_command_line_makes_shards_and_survives_kills(raw, tmp_path):
    """Killed with -9 and with Ctrl-C at several moments, then finished: the bytes of an undisturbed run."""
    whole = ayllu(*PREPARE, *words(raw, tmp_path / "whole"), "--workers", "1")
    assert whole.returncode == 0, whole.stderr
    facts = json.loads(whole.stdout.splitlines()[-1])
    manifest = open_shards(tmp_path / "whole").manifest
    assert facts["tokens"] == manifest["tokens"] > 1000
    assert manifest["tokenizer"] == Tokenizer.load(raw / "tokenizer.model").fingerprint
    assert {s["licence"] for s in manifest["sources"]} == {"CC0-1.0"}
    assert manifest["prepared"]["total"]["rejected"] == 2
    for name, kind in (("parts", signal.SIGKILL), ("tokens", signal.SIGINT)):
        process = started(*words(raw, tmp_path / "cut"), "--workers", "2")
        work = tmp_path / ".cut.work"
        pattern = ".prepared.parts/*.zst" if name == "parts" else "prepared/report.json"
        wait_until(lambda w=work, p=pattern: any(w.glob(p)), process)
        os.kill(process.pid, kind)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in {-signal.SIGKILL, 130}, stderr
        assert not (tmp_path / "cut").exists()
    assert "run the same command again to go on" in stderr
    done = ayllu(*PREPARE, *words(raw, tmp_path / "cut"), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert not (tmp_path / ".cut.work").exists()


def wait_until(condition, process):
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.01)
    raise AssertionError("waited for a minute")


def test_what_is_wrong_is_said_at_once(raw, tmp_path):
    for arguments, message in (
            ((raw / "nothing.txt",), f"no file or folder at {raw / 'nothing.txt'}\n"),
            ((raw / "rows.jsonl", "--tokenizer", "nowhere"), "no tokenizer at nowhere: give a file or folder"),
            ((raw / "rows.jsonl", "data.prepare.quality.min_word=3"), "did you mean 'min_words'?"),
            ((raw / "rows.jsonl", "--tokenizer", tmp_path), "no tokenizer"),
            ((Path("a.toml"), raw / "rows.jsonl"), "give one recipe, or files")):
        done = ayllu(*PREPARE, *arguments, "--out", tmp_path / "out")
        assert done.returncode == 2, done.stderr
        assert re.search(re.escape(message), done.stderr), done.stderr


def test_the_bundled_model_s_tokenizer_goes_by_its_name(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(story(1), encoding="utf-8")
    assert run(["data", "prepare", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--tokenizer", BUNDLED,
                "--json", "data.prepare.quality=off"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] == open_checkpoint(BUNDLED).open_tokenizer().fingerprint
