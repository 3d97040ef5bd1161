"""Posts in, a report out: whole runs, stopped runs, bad input."""

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apps.scripted import ScriptedSpeaker

from ayllu.apps.analyse import run as running
from ayllu.apps.analyse.config import Analysis
from ayllu.apps.analyse.posts import Post, moment, read_pipe, read_posts
from ayllu.apps.analyse.run import SAMPLE, analyse
from ayllu.cli.main import run as main
from ayllu.data.encodings import BROKEN
from ayllu.data.packed import unwatched
from ayllu.data.rows import Reject
from ayllu.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    return analyse(SAMPLE, out, Analysis(brands=("Orlo", "Tavi Air"))), out


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "posts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_sample_tells_its_story(sample):
    summary, out = sample
    told = {(change["of"], change["what"]) for change in summary["trends"]["changes"]}
    assert ("all", "posts") in told                      # week 7 has twice as many posts, most of them angry
    assert ("all", "negative share") in told
    assert {change["when"] for change in summary["trends"]["changes"] if change["of"] == "all"} <= {
        "2026-02-16", "2026-02-23"}
    repairs = {action["about"] for action in summary["actions"] if action["kind"] == "repair"}
    assert "battery" in repairs
    assert set(summary["brand"]) == {"Orlo", "Tavi Air"}
    known = {row["id"] for row in rows_of(out)}
    assert all(id_ in known for action in summary["actions"] for id_ in action["posts"])
    assert all(action["posts"] for action in summary["actions"])
    assert not (out / "analysis.sqlite").exists()        # it held the secret


def test_a_sudden_change_names_the_posts_that_it_stands_on(sample):
    summary, out = sample
    rows, unit = {row["id"]: row for row in rows_of(out)}, 7 * 86400
    assert summary["trends"]["unit"] == "week"
    changes = summary["trends"]["changes"]
    assert len(changes) > 3
    for change in changes:
        start = datetime.fromisoformat(change["when"]).replace(tzinfo=UTC).timestamp()
        assert 1 <= len(change["posts"]) <= 8
        for row in map(rows.get, change["posts"]):
            assert start <= row["time"] < start + unit
            assert change["what"] == "posts" or row["sentiment"] == "negative"
            kind, _, name = change["of"].partition(": ")
            assert kind == "all" or name == row["group"] or name == row["found_topic"]


def test_nobody_is_named(sample):
    _, out = sample
    written = "".join((out / name).read_text(encoding="utf-8") for name in
                      ("posts.jsonl", "posts.csv", "summary.json", "report.html"))
    given = SAMPLE.read_text(encoding="utf-8")
    handles = set(re.findall(r"user_[a-z]+\d+", given))
    assert len(handles) > 50
    for name in (*handles, "Emma Clarke", "Okafor", "13800138000", "emma.clarke@mail.example", "415 555 0134", "张伟"):
        assert name in given
        assert name not in written, name


def test_the_page_is_whole_and_calls_nobody(sample):
    page = (sample[1] / "report.html").read_text(encoding="utf-8")
    for section in ("actions", "time", "topics", "aspects", "segments", "voice", "words", "examples", "checks", "trust",
                    "law"):
        assert f'<section id="{section}">' in page
    assert not re.findall(r"(?:src|href)=|@import|url\(", page)
    assert page.count("<mark") > 20


def test_markup_in_a_post_stays_text(tmp_path):
    posts = tmp_path / "posts.jsonl"
    evil = "<img src=x onerror=alert(1)> good </script><script>alert(2)</script>"
    posts.write_text(json.dumps({"text": evil, "group": "<b>g</b>"}) + "\n" + '{"text": "bad", "group": "h"}\n')
    analyse(posts, tmp_path / "out", Analysis(brands=("<i>good",)))
    page = (tmp_path / "out/report.html").read_text()
    assert "<img" not in page
    assert "<script>alert" not in page
    assert "<b>g</b>" not in page


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHUNK", 50)
    monkeypatch.setattr(running.secrets, "token_hex", lambda n: "ab" * n)    # the runs' only chance
    whole = analyse(SAMPLE, tmp_path / "whole")
    calls = []

    def stop(posts: int) -> None:
        calls.append(posts)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            analyse(SAMPLE, tmp_path / "parts", tick=stop)
        assert (tmp_path / "parts/analysis.sqlite").exists()
    assert analyse(SAMPLE, tmp_path / "parts", tick=stop) == whole
    assert sum(calls) == whole["posts"]                  # no post was read twice
    assert (tmp_path / "parts/posts.jsonl").read_bytes() == (tmp_path / "whole/posts.jsonl").read_bytes()


def test_other_settings_do_not_mix_with_a_stopped_run(tmp_path):
    def stop(posts: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyse(SAMPLE, tmp_path, tick=stop)
    with pytest.raises(ConfigError, match="unfinished"):
        analyse(SAMPLE, tmp_path, Analysis(brands=("Orlo",)))


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path):
    posts = tmp_path / "posts.csv"
    posts.write_text('内容,时间\n很好,2026-01-02\n,2026-01-03\n"a,b",x,y\n坏了,不是日期\n', encoding="utf-8")
    summary = analyse(posts, tmp_path / "out")
    assert (summary["posts"], summary["rejected"], summary["undated"]) == (2, 2, 1)
    assert [row["reason"] for row in summary["rejects"]] == ["no text in '内容': it holds nothing",
                                                           "3 cells, the header has 2"]


@pytest.mark.parametrize(("content", "message"), [
    ("", "no post"), ("a,b\n1,2\n", "name it with --text"), ("text\n\n", "no post")])
def test_nothing_to_analyse_says_why(tmp_path, content, message):
    posts = tmp_path / "posts.csv"
    posts.write_text(content)
    with pytest.raises(DataError, match=message):
        analyse(posts, tmp_path / "out")


def test_a_file_that_is_no_table_of_posts_costs_only_itself(tmp_path):
    folder = tmp_path / "posts"
    folder.mkdir()
    (folder / "a.csv").write_text("text\nI love it\n")
    (folder / "b.csv").write_text("x,y\n1,2\n")
    (folder / "c.html").write_text("<p>hello</p>")
    (folder / "d.pdf").write_bytes(b"%PDF-1.7")
    (folder / "e.txt").write_text("I hate it\n")
    summary = analyse(folder, tmp_path / "out")
    assert (summary["posts"], summary["rejected"]) == (2, 3)
    why = {row["file"]: row["reason"] for row in summary["rejects"]}
    assert "name it with --text" in why["b.csv"]
    assert "found .html" in why["c.html"]
    assert "passed over: 1 .pdf" in why["posts"]


@pytest.mark.parametrize(("bad", "why"), [(b"Caf\xe9 is good\n", "not UTF-8"), (b"a\0\0b\n", "no text"),
                                          (b"x" * (2**26 + 2) + b"\n", "the most is")])
def test_lines_that_are_no_text_are_named(tmp_path, bad, why):
    (tmp_path / "posts.txt").write_bytes(b"I love it\n" + bad + b"I hate it\n")
    summary = analyse(tmp_path / "posts.txt", tmp_path / "out")
    assert summary["posts"] == 2
    told, = summary["rejects"]
    assert (told["file"], told["line"]) == ("posts.txt", 2)
    assert why in told["reason"]


def test_one_files_bad_rows_hide_no_other_files(tmp_path, capsys):
    folder = tmp_path / "posts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\xff\n" * 300)
    (folder / "b.csv").write_text("x,y\n1,2\n")
    (folder / "c.txt").write_text("fine\n")
    assert main(["analyse", str(folder), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "1 posts, 301 rows or files left out" in said
    assert "left out     a.txt, row 1: not UTF-8 at byte 0: save it as UTF-8; 299 more rows of it" in said
    assert "left out     b.csv: none of the columns" in said


def test_bytes_of_a_pipe_that_are_no_text_are_named():
    def read(text: bytes) -> list[Post | Reject]:
        return list(read_pipe(io.TextIOWrapper(io.BytesIO(text), "utf-8", errors=BROKEN), {}))
    for text in (b"good\n\xff\n", b'{"text": "good"}\n{"text": "\xff"}\n', b"text,by\ngood,me\n\xff,me\n"):
        good, bad = read(text)
        assert (good.text, bad.reason) == ("good", "not UTF-8: save it as UTF-8")


def test_the_command_says_what_was_left_out(tmp_path, capsys):
    (tmp_path / "posts.csv").write_text("text\n" + "good " * 5000 + "\nfine\n,\nDas Wetter ist heute sehr schön\n")
    assert main(["analyse", str(tmp_path / "posts.csv"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "left out     posts.csv, row 4: " in said
    assert "1 post cut after 20,000 characters" in said
    assert "not measured emotions, spam, insults" in said
    assert "not read     1 posts are neither English nor Chinese" in said


def test_a_pipe_is_json_lines_a_table_or_plain_lines():
    def read(text: str) -> list[Post | Reject]:
        return list(read_pipe(io.StringIO(text), {}))

    assert [post.text for post in read('{"text": "a"}\n{"body": 1}\nno\n') if isinstance(post, Post)] == ["a"]
    assert read("text,user\nhello,me\n") == [Post("2", "hello", author="me")]
    assert [post.text for post in read("one, two\nthree\n")] == ["one, two", "three"]


def test_two_runs_into_one_folder_would_add_the_posts_twice(tmp_path):
    def meanwhile(posts: int) -> None:
        with pytest.raises(ConfigError, match=r"in use by another run.*--out"):
            analyse(SAMPLE, tmp_path)

    summary = analyse(SAMPLE, tmp_path, tick=meanwhile)
    assert summary["posts"] == len(rows_of(tmp_path)) == analyse(SAMPLE, tmp_path)["posts"]


def test_a_run_that_found_no_post_does_not_bar_the_next(tmp_path):
    file = tmp_path / "a.csv"
    for bad in ("a,b\n1,2\n", "text\n\n"):
        file.write_text(bad)
        with pytest.raises(DataError):
            analyse(file, tmp_path / "out")
    assert not (tmp_path / "out" / "analysis.sqlite").exists()
    file.write_text("a,b\n1,good\n")
    assert analyse(file, tmp_path / "out", Analysis(columns={"text": "b"}))["posts"] == 1


def test_columns_can_be_named(tmp_path):
    posts = tmp_path / "posts.csv"
    posts.write_text("said,by\nhello,me\n")
    found = list(read_posts(posts, {"text": "said", "author": "by"}, unwatched))
    assert found == [Post("2", "hello", author="me")]
    with pytest.raises(DataError, match="no column 'x'"):
        list(read_posts(posts, {"text": "x"}, unwatched))


@pytest.mark.parametrize("written", ["2026-01-02T03:04", "2026/1/2 3:04", "2026年1月2日 3:04", "1767323040",
                                     "1767323040000", "2026-01-02T03:04:00Z"])
def test_times_as_people_write_them(written):
    assert moment(written) == 1767323040


def test_given_topics_and_a_model_that_names(tmp_path):
    summary = analyse(SAMPLE, tmp_path / "given", Analysis(topics={"battery": (), "rival": ("Tavi",)}))
    assert set(summary["topic"]) == {"battery", "rival"}
    assert summary["found_topics"] == []
    speaker = ScriptedSpeaker(lambda messages: "Nice name\nand more")
    summary = analyse(SAMPLE, tmp_path / "named", speaker=speaker)
    assert all(name.startswith("Nice name (") for name in summary["topic"])


def test_cells_that_a_spreadsheet_would_run(tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"text": "=HYPERLINK(1)"}\n')
    analyse(posts, tmp_path / "out")
    assert "'=HYPERLINK" in (tmp_path / "out/posts.csv").read_text(encoding="utf-8-sig")


def test_plain_lines_in_any_encoding(tmp_path):
    (tmp_path / "posts.txt").write_bytes("很好用，推荐\n太差了，要退货\n".encode("gb18030") * 20)
    summary = analyse(tmp_path / "posts.txt", tmp_path / "out")
    assert summary["sentiment"]["positive"] == summary["sentiment"]["negative"] == 20


def test_a_pipe_that_was_stopped_begins_anew(tmp_path):
    def stop(posts: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyse(io.StringIO("good\nbad\n"), tmp_path, tick=stop)
    assert analyse(io.StringIO("other\n"), tmp_path)["posts"] == 1


def test_the_command(tmp_path, capsys, monkeypatch):
    posts = tmp_path / "posts.csv"
    posts.write_text("text,time\n很好,2026-01-01\nbad,2026-01-02\n", encoding="utf-8")
    assert main(["analyse", str(posts), "--out", str(tmp_path / "out"), "--topic", "price", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["posts"] == 2
    assert Path(found["out"]).exists()
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "I love it"}\nno json\n'))
    assert main(["analyse", "-", "--live"]) == 0
    row, = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["sentiment"] == "positive"


@pytest.mark.parametrize("words", [[], ["--sample", "x.csv"], ["no-such-file.csv"], ["--sample", "--head", "x"],
                                   ["--sample", "--labels", "x=one"], ["--sample", "--unit", "year"],
                                   ["x.csv", "--live"]])
def test_what_the_command_cannot_do_is_said(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["analyse", *words]) == 2
    assert capsys.readouterr().err.strip()
