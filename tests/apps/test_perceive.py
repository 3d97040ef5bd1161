"""Pictures and recordings become documents and posts: what the model is shown and asked, what is left out."""

import base64
import io
import json
import zipfile

import pytest
from media.small import png, wav
from PIL import Image

from ayllu.apps.collection import Collection
from ayllu.apps.perceive import below, describe, media_in, transcripts
from ayllu.apps.speaker import Answer
from ayllu.cli.main import main
from ayllu.errors import BadMedia, ConfigError

CAPTIONS = {png(0, 64): "a red lighthouse by the sea", png(1, 64): "a bowl of noodles"}


class Witness:
    """Says what was agreed for a file's bytes."""

    name, is_small = "witness", True

    def __init__(self, sees=True, hears=True, words="the lamp of my bicycle is broken"):
        self.sees, self.hears, self.words = sees, hears, words

    def answers(self, prompts, **options):
        (content,) = (message["content"] for message in prompts[0])
        assert options["temperature"] == 0
        assert content[1]["type"] == "text"
        if content[0]["type"] == "input_audio":
            data = base64.b64decode(content[0]["input_audio"]["data"])
            if data == b"broken":
                raise BadMedia("the sound can't be read")
            return [Answer(self.words, "stop", 1, 1)]
        data = base64.b64decode(content[0]["image_url"]["url"].partition("base64,")[2])
        return [Answer(CAPTIONS.get(data, "something"), "stop", 1, 1)]


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


def test_pictures_are_found_by_what_the_model_says_of_them(folder, tmp_path):
    left = {}
    with Collection(tmp_path / "c.sqlite") as found:
        found.add([folder / "note.txt"])
        n = describe(found, Witness(), [folder], left.__setitem__)
        assert n == 5                                    # light, call, page, menu, plan
        assert list(left) == [str(folder / "broken.wav")]
        hits = [hit.source for hit in found.search("lighthouse sea")]
        assert hits[0] == f"picture: {folder / 'light.png'}"
        assert found.search("noodles")[0].source in {f"picture: {folder / name}, picture 1"
                                                     for name in ("page.html", "menu.docx")}
        assert found.search("bicycle")[0].source == f"picture: {folder / 'call.wav'}"
        (folder / "light.png").unlink()
        describe(found, Witness(), [folder], left.__setitem__)
        assert f"picture: {folder / 'light.png'}" not in {one.source for one in found.documents()}


def test_a_model_that_only_sees_is_played_nothing(folder, tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        assert describe(found, Witness(hears=False), [folder], {}.__setitem__) == 4
        with pytest.raises(ConfigError, match="neither sees nor hears"):
            describe(found, Witness(sees=False, hears=False), [folder], {}.__setitem__)


def test_where_a_picture_stands_is_named(folder):
    [medium] = media_in(folder / "plan.pdf")
    assert medium.name.endswith("plan.pdf, page 1, picture 1")
    assert Image.open(io.BytesIO(medium.data)).size == (64, 64)
    assert folder / ".hidden.png" not in list(below([folder]))


def test_recordings_become_posts(folder):
    left = {}
    rows = list(transcripts(Witness(), [folder], left.__setitem__))
    assert rows == [{"id": str(folder / "call.wav"), "text": Witness().words}]
    assert list(left) == [str(folder / "broken.wav")]
    with pytest.raises(ConfigError, match="hears nothing"):
        list(transcripts(Witness(hears=False), [folder], left.__setitem__))


def test_analyse_hears_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ayllu.cli.documents.seeing", lambda model: Witness(words="This lamp is wonderful, I love it."))
    with pytest.raises(SystemExit) as end:
        main(["analyse", str(folder), "--recordings", "witness", "--out", str(tmp_path / "r")])
    assert end.value.code in (0, None)
    posts = [json.loads(line) for line in (tmp_path / "r" / "posts.jsonl").read_text().splitlines()]
    assert [post["text"] for post in posts] == ["This lamp is wonderful, I love it."]
