"""Images and sounds in a chat: brought by choice, drop, paste and microphone, shown, taken away, sent, kept."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from media.small import write_small
from page.acting import answer_with, answers, finished, record, say, short
from PIL import Image
from server.live import serving

from ayllu.server.start import attach_senses

MODELS = {"data": [{"id": "tiny", "max_model_len": 256, "input_modalities": ["text", "image", "audio"]}]}


def picture(width=12, height=8, kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def tone(rate=44_100, seconds=0.5) -> bytes:
    out, t = io.BytesIO(), np.arange(int(rate * seconds)) / rate
    soundfile.write(out, np.stack([0.5 * np.sin(2 * np.pi * 440 * t)] * 2, 1), rate, format="FLAC")
    return out.getvalue()


def file(name: str, kind: str, data: bytes) -> dict:
    return {"name": name, "mimeType": kind, "buffer": data}


CAT, WORD = file("cat.png", "image/png", picture()), file("word.flac", "audio/flac", tone())


def perceives(page, models=MODELS) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(json=models))


@pytest.fixture
def seeing(opened):
    return opened(ready=perceives)


def choose(page, *files) -> None:
    page.locator(".composer input[type=file]").set_input_files(list(files))


def handed(page, event: str, name: str, kind: str, data: bytes) -> None:
    """A drop or a paste with a file."""
    page.evaluate("""([event, name, kind, data]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const held = new DataTransfer();
        held.items.add(new File([bytes], name, { type: kind }));
        const field = document.getElementById("composer");
        const all = { bubbles: true, cancelable: true };
        const made = event === "paste" ? new ClipboardEvent(event, { clipboardData: held, ...all })
                                       : new DragEvent(event, { dataTransfer: held, ...all });
        field.dispatchEvent(made);
    }""", [event, name, kind, base64.b64encode(data).decode()])


def parts(body: dict) -> list[dict]:
    return body["messages"][-1]["content"]


def test_what_was_chosen_is_shown_sent_before_the_text_and_kept(seeing):
    bodies = answer_with(seeing, "a cat")
    choose(seeing, CAT, WORD)
    tray = seeing.get_by_role("group", name="Images and sounds to send")
    tray.get_by_role("img", name="Image: cat.png").wait_for()
    tray.get_by_label("Sound: word.flac").wait_for()
    say(seeing, "What is this?")
    seeing.get_by_text("a cat", exact=True).wait_for()
    image, sound, text = parts(bodies[0])
    assert image["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(CAT["buffer"]).decode()
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert (rate, samples.ndim, sound["input_audio"]["format"]) == (16_000, 1, "wav")
    assert len(samples) == pytest.approx(8_000, abs=20)
    assert np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples) == pytest.approx(440, abs=3)
    assert text == {"type": "text", "text": "What is this?"}
    assert tray.is_hidden()
    say(seeing, "And now?")
    seeing.wait_for_function("document.querySelectorAll('.body.answer').length === 2")
    assert [part["type"] for part in bodies[1]["messages"][0]["content"]] == ["image_url", "input_audio", "text"]
    seeing.wait_for_timeout(1200)                        # conversations are written down after 0.8 s
    seeing.reload()
    seeing.locator(".list").get_by_text("What is this?").click()
    seeing.locator(".message.user").get_by_role("img", name="Image: cat.png").wait_for()
    assert seeing.locator(".message.user audio").count() == 1
    assert seeing.evaluate("document.querySelector('.message.user img').naturalWidth") == 12


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted(seeing, event):
    handed(seeing, event, "cat.png", "image/png", picture())
    seeing.get_by_role("img", name="Image: cat.png").wait_for()
    seeing.get_by_role("button", name="Take cat.png away").click()
    assert seeing.locator(".tray").is_hidden()
    assert seeing.get_by_role("button", name="Send").is_disabled()


def test_an_image_alone_can_be_sent_and_large_ones_shrink(seeing):
    bodies = answer_with(seeing, "noise")
    choose(seeing, file("large.bmp", "image/bmp", picture(2000, 1000, "BMP")))
    seeing.get_by_role("img", name="Image: large.bmp").wait_for()
    seeing.get_by_role("button", name="Send").click()
    seeing.get_by_text("noise", exact=True).wait_for()
    [part] = parts(bodies[0])
    kind, data = re.match(r"data:([\w/]+);base64,(.*)", part["image_url"]["url"]).groups()
    assert kind == "image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1600, 800)


@pytest.mark.parametrize(("name", "kind", "data", "says"), [
    ("not.png", "image/png", b"not a picture", "not.png can't be read"),
    ("bad.wav", "audio/wav", b"RIFF", "bad.wav can't be read"),
    ("page.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "can't be read"),
    ("a.txt", "text/plain", b"words", "a.txt is neither an image nor a sound")])
def test_what_is_neither_is_said_and_not_sent(seeing, name, kind, data, says):
    choose(seeing, file(name, kind, data))
    seeing.locator(".toast").filter(has_text=says).wait_for()
    assert seeing.locator(".tray").is_hidden()


def test_too_much_for_one_conversation_is_said(seeing):
    choose(seeing, *[CAT] * 17)
    seeing.locator(".toast").filter(has_text="at most 16").wait_for()
    assert seeing.locator(".tray img").count() == 16


def test_a_model_that_reads_only_is_offered_nothing(page):
    assert page.get_by_role("button", name="Add images or sounds").is_hidden()
    assert page.get_by_role("button", name="Speak").is_hidden()
    handed(page, "drop", "cat.png", "image/png", picture())
    assert page.locator(".tray").is_hidden()


def test_a_model_that_sees_only_hears_nothing(opened):
    page = opened(ready=lambda page: perceives(page, {"data": [{**MODELS["data"][0],
                                                               "input_modalities": ["text", "image"]}]}))
    assert page.get_by_role("button", name="Add images or sounds").is_visible()
    assert page.get_by_role("button", name="Speak").is_hidden()
    choose(page, WORD)
    page.locator(".toast").filter(has_text="hears no sounds").wait_for()


def test_an_imported_conversation_brings_its_images_and_nothing_else(seeing, tmp_path):
    bodies = answer_with(seeing, "seen")
    choose(seeing, CAT)
    seeing.get_by_role("img", name="Image: cat.png").wait_for()
    say(seeing, "Look")
    seeing.get_by_text("seen", exact=True).wait_for()
    with seeing.expect_download() as found:
        seeing.get_by_role("button", name="Export all").click()
    kept = json.loads(found.value.path().read_text())
    [image] = [one for node in kept["conversations"][0]["nodes"].values() for one in node.get("media", [])]
    assert bodies
    image["type"] = "image/svg+xml"
    (tmp_path / "bad.json").write_text(json.dumps(kept))
    seeing.locator("input[type=file][accept*=json]").set_input_files(tmp_path / "bad.json")
    seeing.locator(".toast").filter(has_text="can't be imported").wait_for()


def test_from_upload_to_the_streamed_answer(opened, chat_checkpoint, tmp_path):
    """Nothing between browser and model is stood in for: senses of random weights change what the model says."""
    with serving(chat_checkpoint) as live:
        attach_senses(live.served, "tiny", write_small(tmp_path / "senses"), "cpu")
        page = opened(live.url)
        short(page, "8")
        choose(page, CAT, WORD)
        page.locator(".tray audio").wait_for()
        say(page, "What is this?")
        finished(page)
        [seen] = answers(page)
        assert seen
        assert page.locator(".stats").filter(has_text="8 tokens").count() == 1
        choose(page, file("late.flac", "audio/flac", tone(seconds=1.5)))
        page.get_by_label("Sound: late.flac").wait_for()
        say(page, "And this?")                           # longer than this ear takes: the server's words are shown
        page.get_by_role("alert").filter(has_text="this ear takes 1 s").wait_for()


def test_the_microphone(speaking, server):
    microphone = speaking(server.url, perceives)
    microphone.locator(".welcome .beginning:enabled").first.wait_for()
    bodies = answer_with(microphone, "beep")
    record(microphone)
    microphone.get_by_label("Sound: Recording").wait_for()
    microphone.get_by_role("button", name="Send").click()
    microphone.get_by_text("beep", exact=True).wait_for()
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(parts(bodies[0])[0]["input_audio"]["data"])))
    assert rate == 16_000
    assert 0.05 < len(samples) / rate < 4
    assert np.abs(samples).max() > 0.01
    assert answers(microphone) == ["beep"]
