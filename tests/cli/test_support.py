"""`ayllu support`: a conversation, one question, a copy to begin with, the check; and keys for web pages."""

import io
import json

import pytest
from apps.scripted import ScriptedSpeaker
from media.small import wav

from ayllu import log
from ayllu.cli.main import run
from ayllu.server.keys import read_keys


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")               # one for all: reading the sample takes a second


@pytest.fixture(autouse=True)
def kept_here(data, monkeypatch, capsys):
    log.setup()                                          # capsys has its own stderr
    monkeypatch.setenv("XDG_DATA_HOME", str(data))


def test_one_question(capsys):
    assert run(["support", "How", "long is the warranty on lamps?", "--json"]) == 0
    out, err = capsys.readouterr()
    text, line = out.strip().split("\n")
    found = json.loads(line)
    assert text == found["answer"]
    assert "Lamps have 3 years" in text
    assert found["kind"] == "answer"
    assert found["citations"][0]["quote"] == text
    assert "sample" in err
    assert "[en/warranty.md › How long the warranty lasts]" in err


def test_a_folder_is_no_question(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["support", "init", "我 的店"]) == 0
    assert "--docs '我 的店'" in capsys.readouterr().err
    assert run(["support", "check", "我 的店"]) == 2
    assert "name your pages with --docs '我 的店'" in capsys.readouterr().err
    assert run(["support", "x" * 5000, "--docs", "我 的店"]) == 2    # too long for a message, and for a file's name


def test_questions_as_recordings(capsys, monkeypatch, tmp_path):
    (tmp_path / "q.wav").write_bytes(wav(0))
    speaker = ScriptedSpeaker(lambda messages: "How long is the warranty on lamps?")
    monkeypatch.setattr("ayllu.cli.documents.seeing", lambda model: speaker)
    assert run(["support", "--audio", str(tmp_path / "q.wav"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.strip().split("\n")[-1])
    assert (found["question"], found["kind"]) == (speaker.says([]), "answer")
    assert f"heard: {speaker.says([])}" in err
    assert run(["support", "hello", "--audio", str(tmp_path / "q.wav")]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/audio {tmp_path / 'q.wav'}\n"))
    assert run(["support"]) == 0
    assert "Lamps have 3 years" in capsys.readouterr().out
    speaker.says = lambda messages: " "
    assert run(["support", "--audio", str(tmp_path / "q.wav")]) == 2
    assert "no words were made out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_bundled_model_is_not_asked_for_words(capsys):
    assert run(["support", "How long is the warranty on lamps?", "--model", "ayllu-mini-chat", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "too small" in err
    found = json.loads(out.strip().split("\n")[-1])
    assert found["n_tokens"] == 0
    assert found["answer"] == found["citations"][0]["quote"]


def test_a_conversation_through_a_pipe(capsys, monkeypatch):
    lines = ["运费多少？", "", "转人工", "/rate 5", "/new", "thanks", "/what", "/bye", "never read"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run(["support"]) == 0
    out, err = capsys.readouterr()
    assert "12 元" in out
    assert "转给人工客服" in out
    assert out.strip().endswith("Is there anything else?")
    assert "thank you" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n/rate 9\n"))
    assert run(["support"]) == 2
    assert "from 1 (bad) to 5 (good)" in capsys.readouterr().err


def test_a_beginning_of_ones_own(capsys, tmp_path):
    mine = tmp_path / "mine"
    assert run(["support", "init", str(mine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(mine)}
    for path in [*(mine / "zh").iterdir(), *(mine / "en").iterdir()]:
        path.unlink()
    (mine / "en" / "bees.md").write_text("# Bees\n## Honey\nOur honey is from Tyrol.\n", encoding="utf-8")
    (mine / "questions.tsv").write_text("language\texpected\tquestion\nen\tbees.md: Honey\tWhere is the honey from?\n"
                                        "en\tunknown\tDo you sell wax?\n", encoding="utf-8")
    assert run(["support", "check", "--docs", str(mine), "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.strip().split("\n")[-1])
    assert (found["right"]["share"], found["refusal_recall"]["share"], found["wrong"]) == (1, 1, [])
    assert "100.0 %" in out
    assert run(["support", "init", str(mine)]) == 2
    assert "isn't empty" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "says"), [
    (["--json"], "--json answers one question"), (["init"], "init FOLDER"),
    (["hi", "--docs", "/nowhere"], "no rules at"), ([" "], "the message is empty"),
    (["check", "--docs", "{empty}", "--rules", "{rules}"], "holds no page")])
def test_what_cannot_be_done_is_said(capsys, tmp_path, words, says):
    from ayllu.apps.support.pages import sample

    (tmp_path / "empty").mkdir()
    filled = [w.format(empty=tmp_path / "empty", rules=sample() / "rules.toml") for w in words]
    assert run(["support", *filled]) == 2
    assert says in capsys.readouterr().err


def test_keys_for_web_pages_and_for_people(tmp_path, capsys):
    file = tmp_path / "keys.json"
    assert run(["key", str(file), "--name", "web", "--tenant", "shop", "--widget"]) == 0
    assert run(["key", str(file), "--name", "ana", "--tenant", "shop", "--operator"]) == 0
    assert [key.scopes for key in read_keys(file)] == [("support",), ("generate", "jobs", "operate")]
    assert run(["key", str(file), "--name", "x", "--widget", "--admin"]) == 2
    assert "can't be more" in capsys.readouterr().err
