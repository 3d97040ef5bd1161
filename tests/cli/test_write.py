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
    words = ["--topic", "fox", "--kind", "post", "--length", 20, "--source", book, *model]
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


def test_a_batch_goes_on_where_it_was_stopped(capsys, model, tmp_path):
    table, out = tmp_path / "briefs.csv", tmp_path / "texts.jsonl"
    table.write_text("topic,kind,length\nfox,post,20\n,post,20\nbird,post,20\nriver,post,20\n")
    code, said, err = run(capsys, "--batch", table, "--out", out, "--json", *model)
    whole = out.read_text()
    assert code == 0
    assert json.loads(said)["texts"] == 3
    assert "briefs.csv:3: topic: the topic is empty" in err
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


@pytest.mark.parametrize(("words", "says"), [
    ([], "one of --topic"), (["--topic", "x", "--batch", "y.csv"], "one of --topic"),
    (["--topic", "  "], "the topic is empty"), (["--topic", "x", "--out", "x.pdf"], "the ending says the format"),
    (["--topic", "x", "--point", "a cat", "--forbid", "cat"], "in the must-have point"),
    (["--topic", "x", "--source", "nowhere.txt"], "nowhere.txt"), (["--batch", "nowhere.csv"], "nowhere.csv"),
    (["--batch", "b.csv", "--out", "x.md"], ".jsonl"), (["--revise", "nowhere.md"], "nowhere.md"),
])
def test_what_it_refuses_before_a_model_is_loaded(capsys, words, says):
    code, _, err = run(capsys, *words, "--model", "there-is-no-such-model")
    assert code == 2
    assert says in err
