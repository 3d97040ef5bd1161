"""Pictures and recordings become documents and posts: what the model is shown and asked, what is left out."""

import base64
import io
import json
import zipfile

import pytest
from media.small import png, wav
from PIL import Image

from ayllu.apps import perceive
from ayllu.apps.collection import Collection
from ayllu.apps.index.adding import Summary
from ayllu.apps.perceive import below, describe, describe_again, media_in, transcripts
from ayllu.apps.speaker import Answer
from ayllu.cli.main import main
from ayllu.errors import BadMedia, ConfigError

BAD = b"no image" * 50
CAPTIONS = {png(0, 64): "a red lighthouse by the sea", png(1, 64): "a bowl of noodles"}


class Witness:
    """Says what was agreed for a file's bytes."""

    name, is_small, ear_s = "witness", True, 2.0

    def __init__(self, sees=True, hears=True, words="the lamp of my bicycle is broken"):
        self.sees, self.hears, self.words, self.n_asked = sees, hears, words, 0

    def answers(self, prompts, **options):
        assert options["temperature"] == 0
        return [self.answer(content) for (message,) in prompts for content in [message["content"]]]

    def answer(self, content):
        self.n_asked += 1
        assert content[1]["type"] == "text"
        if content[0]["type"] == "input_audio":
            return Answer(self.words, "stop", 1, 1)
        data = base64.b64decode(content[0]["image_url"]["url"].partition("base64,")[2])
        if data == BAD:
            raise BadMedia("the image can't be read")
        return Answer(CAPTIONS.get(data, "something"), "stop", 1, 1)


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "house"
    top.mkdir()
    (top / "light.png").write_bytes(png(0, 64))
    (top / "call.wav").write_bytes(wav(0))
    (top / "broken.wav").write_bytes(b"broken")
    (top / "note.txt").write_text("The kitchen opens at nine.")
    noodles = base64.b64encode(png(1, 64)).decode()
    (top / "page.html").write_text(f"<p>Lunch</p><img src='data:image/png;base64,{noodles}'>")
    (top / ".hidden.png").write_bytes(png(0, 64))
    with zipfile.ZipFile(top / "menu.docx", "w") as packed:
        packed.writestr("word/media/image1.png", png(1, 64))
        packed.writestr("word/media/chart.emf", b"x" * 500)
    out = io.BytesIO()
    Image.open(io.BytesIO(png(0, 64))).save(out, "PDF")
    (top / "plan.pdf").write_bytes(out.getvalue())
    return top


def described(found, paths, speaker=None, model="witness"):
    summary = Summary()
    describe(found, model, lambda _: speaker or Witness(), paths, summary)
    return summary


def test_pictures_are_found_by_what_the_model_says_of_them(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        found.add([folder / "note.txt"])
        summary = described(found, [folder])
        assert summary.added == 5                        # light, call, page, menu, plan
        assert summary.seconds > 0
        broken, chart = (f"picture: {folder / name}" for name in ("broken.wav", "menu.docx, picture 2"))
        assert list(summary.left_out) == [broken, chart]
        assert "chart.emf" in summary.left_out[chart]
        hits = [hit.source for hit in found.search("lighthouse sea")]
        assert hits[0] == f"picture: {folder / 'light.png'}"
        assert found.search("noodles")[0].source in {f"picture: {folder / name}, picture 1"
                                                     for name in ("page.html", "menu.docx")}
        assert found.search("bicycle")[0].source == f"picture: {folder / 'call.wav'}"


def test_only_what_changed_is_looked_at_again(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        described(found, [folder])
        beside = folder.parent / "house2"
        beside.mkdir()
        (beside / "light.png").write_bytes(png(0, 64))
        described(found, [beside])
        describe_again(found, lambda _: pytest.fail("nothing is new"), summary := Summary())
        assert (summary.added, summary.updated, summary.removed, len(summary.left_out)) == (0, 0, 0, 2)
        assert summary.unchanged == 6                    # house2's, too
        (folder / "light.png").write_bytes(png(1, 64))
        (folder / "call.wav").unlink()
        (folder / "menu.docx").unlink()
        witness = Witness()
        describe_again(found, lambda _: witness, summary := Summary())
        assert (summary.added, summary.updated, summary.removed, witness.n_asked) == (0, 1, 3, 1)
        names = {one.source for one in found.documents()}
        assert "noodles" in found.text(next(d.id for d in found.documents() if d.source.endswith("house/light.png")))
        assert f"picture: {beside / 'light.png'}" in names
        assert not any("call.wav" in name or "menu.docx" in name for name in names)
        assert described(found, [folder], model="another").updated == 3
        assert found.remove([str(folder)]) == 4          # light, page, plan, and the broken recording
        describe_again(found, lambda _: pytest.fail("what was removed is forgotten"), Summary())
        assert described(found, [folder]).added == 3


def test_pictures_that_were_looked_at_are_not_passed_over(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        summary = found.add([folder, folder / "light.png"])
        assert summary.passed_over == {".png": 1, ".wav": 2}
        assert str(folder / "light.png") in summary.left_out
        describe(found, "m", lambda _: Witness(hears=False), [folder, folder / "light.png"], summary)
        assert summary.passed_over == {".wav": 2}
        assert str(folder / "light.png") not in found.left_out()


def test_a_model_that_only_sees_is_played_nothing(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        assert described(found, [folder], Witness(hears=False)).added == 4
    with Collection(tmp_path / "d.sqlite") as found, pytest.raises(ConfigError, match="neither sees nor hears"):
        described(found, [folder], Witness(sees=False, hears=False))
    with Collection(tmp_path / "d.sqlite") as found:
        describe_again(found, lambda _: pytest.fail("it was refused"), Summary())


class Faulty(Witness):
    def answer(self, content):
        raise ValueError("shapes don't match")


def test_the_models_own_faults_are_no_bad_files(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found, pytest.raises(ValueError, match="shapes"):
        described(found, [folder], Faulty())
    with pytest.raises(ValueError, match="shapes"):
        list(transcripts(Faulty(), [folder], {}.__setitem__, tmp_path / "heard.jsonl"))


def test_bad_files_are_told_one_by_one(tmp_path):
    for name, data in {"broken.pdf": b"%PDF-1.4 nothing", "broken.docx": b"PK nothing", "bad.png": BAD,
                       "good.png": png(0, 64)}.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "odd.html").write_bytes(b"<img src='data:image/png;base64,AAA'>")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/media/a.png", png(0, 64))
    whole = bytearray(packed.getvalue())
    whole[60:200] = b"\xff" * 140                        # within the deflated picture
    (tmp_path / "cut.docx").write_bytes(whole)
    with Collection(tmp_path / "c.sqlite") as found:
        summary = described(found, [tmp_path])
    assert summary.added == 1
    names = [name.removeprefix(f"picture: {tmp_path}/") for name in summary.left_out]
    assert names == ["bad.png", "broken.docx", "broken.pdf", "cut.docx", "odd.html, picture 1"]


def test_what_is_beyond_the_limits_is_said(folder, monkeypatch):
    (folder / "many.html").write_bytes((folder / "page.html").read_bytes() * 3)
    monkeypatch.setattr(perceive, "MOST_PICTURES", 2)
    *_, last = media_in(folder / "many.html")
    assert "more than 2 pictures" in last.data
    monkeypatch.setattr(perceive, "MOST_BYTES", 300)
    [only] = media_in(folder / "page.html")
    assert "at most 300" in only.data


def test_where_a_picture_stands_is_named(folder):
    [medium] = media_in(folder / "plan.pdf")
    assert medium.name.endswith("plan.pdf, page 1, picture 1")
    assert Image.open(io.BytesIO(medium.data)).size == (64, 64)
    assert folder / ".hidden.png" not in list(below([folder]))


def test_recordings_become_posts(folder):
    left = {}
    (folder / "long.wav").write_bytes(wav(0, seconds=5))     # the witness hears two seconds at a time
    kept = folder.parent / "heard.jsonl"
    rows = list(transcripts(Witness(), [folder], left.__setitem__, kept))
    with kept.open("a") as lines:
        lines.write('["witness", "cut o')
    again = Witness(words="something else")
    assert list(transcripts(again, [folder], left.__setitem__, kept)) == rows
    assert again.n_asked == 0
    (folder / "call.wav").write_bytes(wav(7))
    changed, _ = transcripts(again, [folder], left.__setitem__, kept)
    assert (changed["text"], again.n_asked) == ("something else", 1)
    long = rows.pop()
    assert long["text"].split(Witness().words) in (["", " ", " ", ""], ["", " ", " ", " ", ""])
    assert rows == [{"id": str(folder / "call.wav"), "text": Witness().words}]
    assert list(left) == [str(folder / "broken.wav")]
    with pytest.raises(ConfigError, match="hears nothing"):
        list(transcripts(Witness(hears=False), [folder], left.__setitem__, kept))


def test_analyse_hears_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ayllu.cli.documents.seeing", lambda model: Witness(words="This lamp is wonderful, I love it."))
    with pytest.raises(SystemExit) as end:
        main(["analyse", str(folder), "--recordings", "witness", "--out", str(tmp_path / "r")])
    assert end.value.code in (0, None)
    posts = [json.loads(line) for line in (tmp_path / "r" / "posts.jsonl").read_text().splitlines()]
    assert [post["text"] for post in posts] == ["This lamp is wonderful, I love it."]
    for words in (["--sample"], ["-", "--live"], ["-"]):
        with pytest.raises(SystemExit) as end:
            main(["analyse", *words, "--recordings", "witness"])
        assert end.value.code == 2
