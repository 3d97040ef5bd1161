"""Images and sounds over HTTP: every API reads them alike; what is wrong with one is a 400 that names it, and the
server goes on."""

import base64
import io
import json
import zlib

import httpx
import numpy as np
import pytest
import soundfile
from media.small import png, wav, write_small
from PIL import Image
from server.live import serving

from ayllu.engine.parts import audio_part, image_part
from ayllu.principal import LOCAL
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.start import attach_senses

CAT, QUESTION = png(0), wav(0)


def b64(data):
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint) as found:
        attach_senses(found.served, "tiny", write_small(tmp_path_factory.mktemp("senses") / "s"), "cpu",
                      ["pictures.example"])
        yield found


def image(data=CAT, kind="image/png"):
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{b64(data)}", "detail": "low"}}


def sound(data=QUESTION):
    return {"type": "input_audio", "input_audio": {"data": b64(data), "format": "wav"}}


def text(words="What is it?"):
    return {"type": "text", "text": words}


def asked(live, *parts, **more):
    body = {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 6, "temperature": 0, **more}
    return httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)


def test_the_official_client_shows_and_plays(client):
    one, same, other = (client.chat.completions.create(
        model="tiny", temperature=0, max_tokens=6, logprobs=True, messages=[
            {"role": "user", "content": [image(png(n)), sound(), text()]}]) for n in (0, 0, 1))
    first, again, differs = ([t.logprob for t in found.choices[0].logprobs.content] for found in (one, same, other))
    assert again == pytest.approx(first, abs=1e-4)       # read in other pieces, whose sums have another order
    assert differs != pytest.approx(first, abs=1e-2)
    assert one.usage.prompt_tokens == other.usage.prompt_tokens
    blind = client.chat.completions.create(model="tiny", temperature=0, max_tokens=6, messages=[
        {"role": "user", "content": "What is it?"}])
    assert one.usage.prompt_tokens == blind.usage.prompt_tokens + 4 + 5 + 1   # and a space that begins the text
    assert same.usage.prompt_tokens_details.cached_tokens == 32                # two pages; another picture has its own
    assert other.usage.prompt_tokens_details.cached_tokens == 0
    chunks = client.chat.completions.create(model="tiny", temperature=0, max_tokens=6, stream=True, messages=[
        {"role": "user", "content": [image(), sound(), text()]}])
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == one.choices[0].message.content


def test_all_apis_read_the_same_picture(live, client, claude, llama):
    want = asked(live, image(), text()).json()
    response = client.responses.create(model="tiny", max_output_tokens=6, temperature=0, input=[
        {"role": "user", "content": [{"type": "input_image", "image_url": image()["image_url"]["url"], "detail": "low"},
                                     {"type": "input_text", "text": "What is it?"}]}])
    message = claude.messages.create(model="tiny", max_tokens=6, extra_body={"temperature": 0}, messages=[
        {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                                                  "data": b64(png(0))}}, text()]}])
    chat = llama.chat("tiny", [{"role": "user", "content": "What is it?", "images": [png(0)]}],
                      options={"temperature": 0, "num_predict": 6})
    generated = llama.generate("tiny", "What is it?", images=[png(0)], options={"temperature": 0, "num_predict": 6})
    said = want["choices"][0]["message"]["content"]
    assert [response.output_text, message.content[0].text, chat.message.content, generated.response] == [said] * 4
    assert response.usage.input_tokens == chat.prompt_eval_count == want["usage"]["prompt_tokens"]
    count = claude.messages.count_tokens(model="tiny", messages=[{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(png(0))}}, text()]}])
    assert count.input_tokens == want["usage"]["prompt_tokens"]


def test_several_in_one_conversation(live):
    found = httpx.post(f"{live.url}/v1/chat/completions", timeout=60, json={"max_tokens": 3, "messages": [
        {"role": "user", "content": [image(), text()]}, {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [sound(), image(png(2)), text("And these?")]}]})
    assert found.status_code == 200


def test_what_it_takes_is_told(live, client, llama):
    assert client.models.list().data[0].input_modalities == ["text", "image", "audio"]
    assert {"vision", "audio"} <= set(llama.show("tiny").capabilities)


def big_png(side=40_000):
    """So many pixels a side in a few bytes."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def hour():
    out = io.BytesIO()
    soundfile.write(out, np.full(4_000 * 3600, 1000, np.int16), 4_000, format="FLAC")
    return out.getvalue()


def picture(kind, mode="RGB", **options):
    out = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert(mode).save(out, kind, **options)
    return out.getvalue()


def recorded(kind, rate=16_000, channels=1, seconds=0.5):
    t, out = np.arange(int(rate * seconds)) / rate, io.BytesIO()
    soundfile.write(out, np.stack([0.4 * np.sin(2 * np.pi * 300 * t)] * channels, 1), rate, format=kind)
    return out.getvalue()


def longer(data, n_bytes):
    """A WAV whose header promises more, or less, than there is."""
    at = data.index(b"data") + 4
    return data[:at] + n_bytes.to_bytes(4, "little") + data[at + 4:]


MORE = {"save_all": True, "append_images": [Image.new("RGB", (64, 48), "blue")] * 3}
USUAL = {"moving gif": lambda: image(picture("GIF", **MORE)), "moving webp": lambda: image(picture("WEBP", **MORE)),
         "cmyk": lambda: image(picture("JPEG", "CMYK")), "mpo": lambda: image(picture("MPO", **MORE)),
         "grey": lambda: image(picture("TIFF", "L")), "mp3": lambda: sound(recorded("MP3")),
         "stereo flac": lambda: sound(recorded("FLAC", 96_000, 2)), "ogg": lambda: sound(recorded("OGG", 48_000)),
         "wav, says hours": lambda: sound(longer(wav(0), 2**31 - 2)),
         "wav, says less": lambda: sound(longer(wav(0), 9000))}


@pytest.mark.parametrize("case", USUAL)
def test_what_people_have_is_read(live, case):
    found = asked(live, USUAL[case](), text())
    assert found.status_code == 200, found.text


BAD = {
    "100k": (lambda: image(big_png(100_000)), "scale it down"), "nothing": (lambda: sound(b""), "it is empty"),
    "header alone": (lambda: sound(wav(0)[:44]), "no samples"),
    "says nothing": (lambda: sound(longer(wav(0), 0)), "no samples"),
    "bomb": (lambda: image(big_png()), "pixels"), "cut off": (lambda: image(png(0, 64)[:200]), "damaged or cut off"),
    "svg": (lambda: image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "SVG"),
    "html": (lambda: image(b"<html>hi"), "HTML"), "says html": (lambda: image(png(0), "text/html"), "text/html"),
    "empty": (lambda: image(b""), "empty"), "a sound": (lambda: image(wav(0)), "no image"),
    "gif": (lambda: image(picture("GIF")[:1500]), "decoded"), "an image": (lambda: sound(png(0)), "no sound"),
    "silence": (lambda: sound(wav(0, loud=0)), "silent"), "an hour": (lambda: sound(hour()), "minutes"),
    "too long": (lambda: sound(wav(0, 2.0)), "this ear takes 1 s"), "noise": (lambda: sound(bytes(999)), "no sound"),
    "elsewhere": (lambda: {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}, "fetches from"),
    "file": (lambda: {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "data: URL"),
    "no base64": (lambda: {"type": "input_audio", "input_audio": {"data": "%%%", "format": "wav"}}, "base64")}


@pytest.mark.parametrize("case", BAD)
def test_whatever_is_bad_is_told_and_the_server_goes_on(live, case):
    make, says = BAD[case]
    found = asked(live, text(), make())
    error = found.json()["error"]
    assert (found.status_code, error["param"], error["code"]) == (400, "messages.0.content.1", "bad_media"), error
    assert says in error["message"]
    assert error["message"].startswith("messages.0.content.1")
    assert asked(live, image(), text()).status_code == 200


@pytest.mark.parametrize(("part", "says"), [
    ({"type": "video_url", "video_url": {}}, "video_url"), ({"type": "image_url", "image_url": "x"}, "image_url"),
    ({"type": "image_url", "image_url": {"url": "x", "size": 3}}, "size"), ({"type": "input_audio"}, "input_audio")])
def test_parts_of_no_known_form(live, part, says):
    found = asked(live, part)
    assert found.status_code == 400
    assert says in found.json()["error"]["message"]


def test_only_the_user_shows(live):
    found = httpx.post(f"{live.url}/v1/chat/completions", json={"messages": [{"role": "system", "content": [image()]}]})
    assert (found.status_code, "the user shows" in found.text) == (400, True)
    found = httpx.post(f"{live.url}/v1/messages", json={"max_tokens": 1, "messages": [
        {"role": "assistant", "content": [{"type": "image", "source": {"type": "base64", "data": b64(png(0))}}]}]})
    assert (found.status_code, "only the user" in found.text) == (400, True)


def test_fetching_from_an_allowed_machine_only(live, monkeypatch):
    from ayllu.apps.translate.fetch import Page
    from ayllu.server import media

    asks = []

    def fetch(url, limits):
        asks.append((url, limits.hosts, limits.allow_private))
        return Page(url, png(0), "image/png", None)

    monkeypatch.setattr(media, "fetch", fetch)
    url = "https://pictures.example/cat.png"
    found = asked(live, {"type": "image_url", "image_url": {"url": url}}, text())
    assert found.json()["choices"] == asked(live, image(), text()).json()["choices"]
    assert asks == [(url, frozenset({"pictures.example"}), False)]
    assert asked(live, {"type": "image_url", "image_url": {"url": "https://other.example/"}}).status_code == 400
    assert len(asks) == 1


def test_a_speaker_on_the_server(live, tmp_path):
    (tmp_path / "cat.png").write_bytes(png(0))
    (tmp_path / "q.wav").write_bytes(wav(0))
    speaker = ServedSpeaker(live.served, LOCAL)
    assert (speaker.sees, speaker.hears) == (True, True)
    parts = [image_part(tmp_path / "cat.png"), audio_part(tmp_path / "q.wav"), text()]
    answer = speaker.answers([[{"role": "user", "content": parts}]], temperature=0, max_tokens=6)[0]
    want = asked(live, image(), sound(), text()).json()
    assert (answer.text, answer.prompt_tokens) == (want["choices"][0]["message"]["content"],
                                                   want["usage"]["prompt_tokens"])
    assert len(speaker.logprobs([{"role": "user", "content": parts}], "ab")) > 0


def test_a_model_without_senses_says_so_by_the_field(chat_checkpoint):
    with serving(chat_checkpoint) as blind:
        found = asked(blind, text(), image())
        error = found.json()["error"]
        assert (found.status_code, error["param"]) == (400, "messages.0.content.1")
        assert "reads text only" in error["message"]
        assert httpx.get(f"{blind.url}/v1/models").json()["data"][0]["input_modalities"] == ["text"]
        found = httpx.post(f"{blind.url}/api/chat", json={"model": "tiny", "messages": [
            {"role": "user", "content": "x", "images": [b64(png(0))]}]})
        assert (found.status_code, "images.0" in found.json()["error"]) == (400, True)


def test_the_document_tells_what_is_taken(live):
    found = json.dumps(httpx.get(f"{live.url}/openapi.json").json())
    for kind in ("image_url", "input_audio", "input_image"):
        assert f'"enum": ["{kind}"]' in found
