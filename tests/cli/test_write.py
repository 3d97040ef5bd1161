"""`ayllu write`: one text, a text written anew, a batch that goes on; and what it refuses, by name."""

import json

import pytest

from ayllu.cli import main

told = []


@pytest.fixture(autouse=True)
def hear(monkeypatch):
    """What is said on stderr by the command itself."""
    told.clear()
    monkeypatch.setattr("ayllu.cli.write.say", told.append)


def run(capsys, *words):
    code = main.run(["write", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err + "\n".join(told)


@pytest.fixture
def model(chat_checkpoint):
    return ["--model", str(chat_checkpoint), "--seed", "3"]


def test_a_text_its_checks_and_its_file(capsys, model, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("one two three")
    words = ["--topic", "fox", "--kind", "post", "--length", 20, "--source", book, "--training", book, *model]
    code, out, err = run(capsys, *words, "--out", tmp_path / "fox.docx", "--json")
    value = json.loads(out.splitlines()[-1])
    assert code == 0
    assert value["text"].startswith("# fox\n\n")
    assert value["checks"]["target"] == 20
    assert value["is_small"]
    assert "too small" in err
    assert (tmp_path / "fox.docx").read_bytes().startswith(b"PK")
    code, out, _ = run(capsys, *words)
    assert (code, out) == (0, value["text"])


def test_a_text_is_written_anew(capsys, model, tmp_path):
    (tmp_path / "old.md").write_text("the fox and the bird")
    code, out, _ = run(capsys, "--revise", tmp_path / "old.md", "--action", "continue", "--json", *model)
    assert code == 0
    assert json.loads(out)["action"] == "continue"


def test_a_revision_is_checked_by_what_needs_no_brief(capsys, model, tmp_path, monkeypatch):
    old, source = tmp_path / "old.md", tmp_path / "source.md"
    source.write_text("Long ago a fox went down to the river with three of her friends to look for a bird.")
    new = f"{source.read_text()} It was cold there. It was cold there."
    monkeypatch.setattr("ayllu.apps.write.revise.revise", lambda *args, **options: iter([new]))
    old.write_text("the fox")
    code, out, err = run(capsys, "--revise", old, "--source", source, "--json", *model)
    found = json.loads(out)["checks"]
    assert (code, found["target"], found["length"]) == (0, 0, 27)
    assert sorted(found["faults"]) == ["copies", "repetition"]
    assert [copy["source"] for copy in found["copies"]] == [str(source)]
    assert "length      27 words\n" in err
    assert f"came again  It was cold there. (at character {new.rindex('It')})" in err
    assert "to check    Long ago a fox" in err
    assert json.loads(run(capsys, "--revise", old, "--action", "titles", "--json", *model)[1])["checks"] is None


def test_a_batch_goes_on_where_it_was_stopped(capsys, model, tmp_path):
    table, out = tmp_path / "briefs.csv", tmp_path / "texts.jsonl"
    table.write_text("topic,kind,length,keywords\nfox,post,20,\n,post,20,\n,post,20,bird\nriver,post,20,\n")
    code, said, err = run(capsys, "--batch", table, "--out", out, "--json", *model)
    whole = out.read_text()
    assert code == 0
    assert json.loads(said)["texts"] == 3
    assert "briefs.csv:3: topic: the topic is empty" in err
    assert [json.loads(line)["topic"] for line in whole.splitlines()] == ["fox", "bird", "river"]
    out.write_text(whole.splitlines(keepends=True)[0])
    code, said, err = run(capsys, "--batch", table, "--out", out, "--json", *model)
    assert "1 of 3 texts are in" in err
    assert out.read_text() == whole


def test_ctrl_c_keeps_what_is_finished(capsys, model, tmp_path, monkeypatch):
    from ayllu.apps.write import batch

    table, out = tmp_path / "briefs.csv", tmp_path / "texts.jsonl"
    table.write_text("topic,kind,length\nfox,post,20\nbird,post,20\n")
    written = []

    def stops(*args, **options):
        if written:
            raise KeyboardInterrupt
        written.append(1)
        return "# fox\n\nfox\n"

    monkeypatch.setattr(batch, "write", stops)
    code, _, err = run(capsys, "--batch", table, "--out", out, *model)
    assert code == 130
    assert "stopped: 1 of 2 texts" in err
    assert len(out.read_text().splitlines()) == 1


@pytest.mark.parametrize("held", ["no json\n", "[1]\n", '{"text": "mine"}\n'])
def test_a_file_of_something_else_is_no_batch(capsys, tmp_path, held):
    table, out = tmp_path / "briefs.csv", tmp_path / "texts.jsonl"
    table.write_text("topic\nfox\n")
    out.write_text(held)
    code, _, err = run(capsys, "--batch", table, "--out", out, "--model", "there-is-no-such-model")
    assert (code, out.read_text()) == (2, held)
    assert "holds something else than texts of briefs" in err


@pytest.mark.parametrize(("words", "says"), [
    ([], "one of --topic"), (["--keywords", "fox; river", "--forbid", "Fox"], "is in 'fox', "),
    (["--topic", "x", "--batch", "y.csv"], "one of --topic"),
    (["--topic", "  "], "the topic is empty"), (["--topic", "x", "--out", "x.pdf"], "the ending says the format"),
    (["--topic", "x", "--point", "a cat", "--forbid", "cat"], "is in 'a cat', which is to occur"),
    (["--topic", "x", "--source", "nowhere.txt"], "nowhere.txt"), (["--batch", "nowhere.csv"], "nowhere.csv"),
    (["--batch", "b.csv", "--out", "x.md"], ".jsonl"), (["--batch", "b.csv", "--kind", "post"], "--kind can't be "),
    (["--revise", "a.md", "--length", "50", "--forbid", "x"], "--length, --forbid can't be heeded where --revise"),
    (["--topic", "x", "--wish", "shorter"], "--wish can't be heeded"), (["--revise", "nowhere.md"], "nowhere.md"),
])
def test_what_it_refuses_before_a_model_is_loaded(capsys, words, says):
    code, _, err = run(capsys, *words, "--model", "there-is-no-such-model")
    assert code == 2
    assert says in err


def test_drafts_are_kept_with_versions_and_a_diff(capsys, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("ayllu.cli.drafts.say", told.append)
    assert run(capsys, "--drafts")[2].endswith("no drafts yet: --draft NAME keeps a text as one")
    code, first, err = run(capsys, "--topic", "fox", "--kind", "post", "--length", 20, "--draft", "my fox", *model)
    assert (code, "kept as version 1 of the draft my fox" in err) == (0, True)
    code, second, err = run(capsys, "--draft", "my fox", "--action", "continue", *model)
    assert (code, "kept as version 2 of the draft my fox" in err) == (0, True)
    assert run(capsys, "--draft", "my fox")[1] == first.rstrip() + "\n\n" + second[:-1]
    kept = json.loads(run(capsys, "--draft", "my fox", "--json")[1])
    assert [(one["text"], one["note"]) for one in kept["versions"]] == [
        (first, ""), (first.rstrip() + "\n\n" + second[:-1], "continue")]
    assert kept["brief"]["kind"] == "post"
    changes = json.loads(run(capsys, "--draft", "my fox", "--diff", "1:2", "--json")[1])["changes"]
    assert "".join(text for kind, text in changes if kind != "added") == first
    said = run(capsys, "--draft", "my fox", "--diff", "1:2")[1]
    assert said.startswith("# fox\n")
    assert "{+\n" in said
    assert run(capsys, "--drafts")[1].startswith("my fox  (")
    assert json.loads(run(capsys, "--drafts", "--json")[1])["drafts"][0]["versions"] == 2


def test_a_file_that_becomes_a_draft_is_its_first_version(capsys, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "old.md").write_text("the fox and the bird")
    for _ in range(2):
        assert run(capsys, "--revise", tmp_path / "old.md", "--action", "continue", "--draft", "old", *model)[0] == 0
    kept = json.loads(run(capsys, "--draft", "old", "--json")[1])["versions"]
    assert [one["note"] for one in kept] == ["", "continue", "continue"]
    assert kept[0]["text"] == "the fox and the bird"


@pytest.mark.parametrize(("words", "said"), [
    (["--draft", "x"], "there is no draft 'x'; the newest are: none"),
    (["--draft", "x", "--action", "shorten"], "there is no draft 'x'"),
    (["--diff", "1:2"], "--diff goes with --draft alone"),
    (["--draft", "x", "--topic", "y", "--diff", "1:2"], "--diff goes with --draft alone"),
    (["--draft", "x", "--batch", "y.csv"], "--batch keeps no drafts")])
def test_what_drafts_refuse(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, _, err = run(capsys, *words)
    assert (code, said in err) == (2, True)


def test_versions_that_are_not_there(capsys, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "old.md").write_text("the fox")
    run(capsys, "--revise", tmp_path / "old.md", "--draft", "old", *model)
    for between in ("1:3", "0:1", "1", "a:b"):
        assert "old has 1 to 2" in run(capsys, "--draft", "old", "--diff", between)[2]
