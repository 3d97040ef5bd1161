"""`ayllu ask` and `ayllu documents`: what they print, and what they refuse."""

import json

from apps.scripted import ScriptedSpeaker
from media.small import wav

from ayllu.apps.collection import Collection
from ayllu.cli.main import run

RETURNS = ("Shoes may be returned within 30 days of delivery. Hats can not be returned.\n\nThe parcel must be sent to "
           "Porto. We pay for the parcel.")


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "returns.txt").write_text(RETURNS)
    (folder / "bad.pdf").write_bytes(b"no pdf")
    assert run(["ask", str(folder), "How many days do I have to return shoes?", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    cited, = found["citations"]
    assert cited["source"] == str(folder / "returns.txt")
    assert RETURNS[cited["start"]:cited["end"]] == cited["quote"] == found["answer"].removesuffix(" [1]")
    assert run(["ask", str(folder), "What is the capital of France?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["citations"] == []
    assert run(["ask", "no-such-folder", "Who?"]) == 2
    assert run(["ask", str(folder / "bad.pdf"), "Who?"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert run(["documents", "add", str(tmp_path / "bad.sqlite"), str(folder / "bad.pdf")]) == 2
    assert "is damaged" in capsys.readouterr().out
    (tmp_path / "q.wav").write_bytes(wav(0))
    monkeypatch.setattr("ayllu.cli.documents.seeing", lambda model: ScriptedSpeaker(
        lambda messages: "How many days do I have to return shoes?"))
    assert run(["ask", str(folder), "--audio", str(tmp_path / "q.wav"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["citations"] == found["citations"]
    assert run(["ask", str(folder), "Who?", "--audio", str(tmp_path / "q.wav")]) == 2
    assert run(["ask", str(folder), "--audio", str(tmp_path / "none.wav")]) == 2
    base = str(tmp_path / "base.sqlite")
    assert run(["documents", "add", base, str(folder), "--meta", "shop=north", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["added"] == 1
    assert "is damaged" in summary["left_out"][str(folder / "bad.pdf")]
    assert run(["documents", "search", base, "parcel", "--fuse", "sum"]) == 2
    assert run(["ask", base, "Who pays?", "--fuse", "sum"]) == 2
    assert run(["ask", base, "Who pays for the parcel?", "--fuse", "rrf"]) == 0
    assert "We pay for the parcel. [1]" in capsys.readouterr().out
    assert run(["documents", "search", base, "parcel", "--where", "shop=north", "--fuse", "rrf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passages"][0]["source"] == str(folder / "returns.txt")
    assert run(["ask", base, "Who pays for the parcel?"]) == 0
    assert "We pay for the parcel. [1]" in capsys.readouterr().out
    (folder / "returns.txt").unlink()
    assert run(["documents", "update", base]) == 0
    assert run(["documents", "list", base, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["documents"] == []
    assert run(["documents", "list", str(tmp_path / "none.sqlite")]) == 2


def test_a_search_that_finds_nothing_says_why(tmp_path, capsys):
    base = tmp_path / "c.sqlite"
    with Collection(base) as found:
        found.add_texts({f"{n}": f"a picture of {name}" for n, name in enumerate(("cats", "dogs", "bread", "tea"))})

    def told(*words):
        assert run(["documents", "search", str(base), *words]) == 0
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err

    assert "more than half of the passages, which tells none of them from the others: picture" in told("picture")
    assert "in no passage: zebra, yak. Try other words" in told("zebra yak")
    assert "no words" in told("?!")
    assert "of those that --where keeps" in told("tea", "--where", "source=cats*")
    assert run(["ask", str(base), "tea?", "--where", "team=none"]) == 2
    assert "no document has team=none" in capsys.readouterr().err
