"""Real photos, speech and conversations about photos through the whole path; what the model says is not measured."""

import tarfile
from pathlib import Path

import httpx
import pytest
from media.small import write_small
from media_pairs import recipe
from PIL import Image
from scripts import ROOT
from server.live import serving

from ayllu import LLM
from ayllu.apps.collection import Collection
from ayllu.apps.hearing import transcribe
from ayllu.apps.index.adding import Summary
from ayllu.apps.perceive import describe, describe_again
from ayllu.apps.speaker import LocalSpeaker
from ayllu.engine.parts import image_part
from ayllu.server.start import attach_senses
from ayllu.train.align import align, prepared_media

DATA = ROOT.parent / "shared" / "data"


def unpacked(name: str, into: Path) -> Path:
    """A set's files; where they are missing, the test is skipped."""
    packed = DATA / name / "files.tar"
    if not packed.is_file():
        pytest.skip(f"needs {packed}")
    with tarfile.open(packed) as tar:
        tar.extractall(into, filter="data")
    return into


@pytest.fixture(scope="module")
def speaker() -> LocalSpeaker:
    """The bundled model with its senses."""
    return LocalSpeaker(LLM.load("ayllu-mini-chat", device="cpu"), "ayllu-mini-chat")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """As cameras write them: JPEG of 12 megapixels, turned by EXIF, beside what the set holds."""
    folder = unpacked("photos_small", tmp_path_factory.mktemp("photos"))
    photo = Image.open(folder / "coffee.png").convert("RGB")
    exif = photo.getexif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    photo.resize((4000, 3000)).save(folder / "camera.jpeg", "JPEG", exif=exif)
    photo.convert("CMYK").save(folder / "print.jpg", "JPEG")
    return folder


def test_photos_are_captioned_found_and_talked_of(speaker, photos, tmp_path):
    n = len(list(photos.iterdir()))
    with Collection(tmp_path / "c.sqlite") as found:
        describe(found, "mini", lambda _: speaker, [photos], summary := Summary())
        assert (summary.added, summary.left_out) == (n, {})
        assert len(found.documents()) == n
        assert found.search("picture coffee")[0].source.startswith(f"picture: {photos}")
        Image.open(photos / "coffee.png").transpose(3).save(photos / "coffee.png")
        describe_again(found, lambda _: speaker, summary := Summary())
        assert (summary.added, summary.updated, summary.left_out) == (0, 1, {})
    content = [image_part(photos / "camera.jpeg"), {"type": "text", "text": "What is this?"}]
    assert speaker.llm.chat([{"role": "user", "content": content}], temperature=0, max_tokens=20).text.strip()


def test_speech_becomes_text_in_python_and_over_http(speaker, chat_checkpoint, tmp_path):
    for file in sorted(unpacked("speech_samples", tmp_path / "speech").iterdir()):
        found = transcribe(speaker, file.read_bytes(), file.name)
        assert found.segments, file.name
        assert found.segments[-1].end <= found.seconds
        assert all(s.end - s.start <= speaker.ear_s for s in found.segments)
    with serving(chat_checkpoint) as live:
        attach_senses(live.served, "tiny", write_small(tmp_path / "senses"), "cpu")
        answer = httpx.post(f"{live.url}/v1/audio/transcriptions", files={"file": (file.name, file.read_bytes())},
                            data={"response_format": "verbose_json"}, timeout=60)
        assert answer.status_code == 200
        assert answer.json()["duration"] == round(found.seconds, 3)


def test_conversations_about_photos_train(chat_checkpoint, tmp_path):
    unpacked("mllm_demo", tmp_path)
    rows = [{"path": str(DATA / "mllm_demo" / "train.jsonl.zst"), "files": "."}]
    table = recipe(tmp_path, chat_checkpoint, context=1024, data={"sources": rows, "held_out_share": 0.0},
                   learns="encoder", loop={"steps": 1, "batch_size": 6, "micro_batch": 2})
    config, lesson = prepared_media(table, tmp_path)
    assert (len(lesson.train), lesson.rejects) == (6, [])
    assert sorted(len(sample.media) for sample in lesson.train) == [1, 1, 1, 1, 2, 2]
    assert align(config, lesson, tmp_path)["steps"] == 1
