"""Recordings over HTTP: the official client, all forms of the answer, and what can't be honoured."""

import io
from itertools import pairwise

import httpx
import numpy as np
import pytest
import soundfile
from media.small import png, wav, write_small
from server.live import serving

from ayllu.apps.hearing import cuts
from ayllu.media.sound import RATE, Sound
from ayllu.server.start import attach_senses


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint) as found:
        attach_senses(found.served, "tiny", write_small(tmp_path_factory.mktemp("senses") / "s"), "cpu")
        yield found


def three_words():
    """Three tones with silence between them, 2.4 s: more than the ear's second, as FLAC at another rate."""
    t, out = np.arange(4800) / 8000, io.BytesIO()
    tones = [np.concatenate([np.sin(2 * np.pi * f * t) / 2, np.zeros(1600)]) for f in (300, 500, 900)]
    soundfile.write(out, np.concatenate(tones), 8000, format="FLAC")
    return out.getvalue()


def test_the_official_client(client):
    found = client.audio.transcriptions.create(model="tiny", file=("a.wav", wav(0)))
    again = client.audio.transcriptions.create(model="tiny", file=("a.wav", wav(0)), response_format="text")
    assert again.strip() == found.text.strip()
    other = client.audio.transcriptions.create(model="tiny", file=("a.wav", wav(5)), prompt="Which digit is said?")
    assert other.text != found.text


def sent(live, data, **fields):
    return httpx.post(f"{live.url}/v1/audio/transcriptions", files={"file": ("a.flac", data)}, data=fields, timeout=60)


def test_a_long_recording_is_cut_where_it_is_quiet(live):
    found = sent(live, three_words(), response_format="verbose_json", language="en").json()
    assert (found["task"], found["language"], found["duration"]) == ("transcribe", "en", 2.4)
    edges = [(s["start"], s["end"]) for s in found["segments"]]
    assert [edge for edge in edges if edge[1] - edge[0] > 1] == []
    assert all(0.6 <= end <= 0.8 or 1.4 <= end <= 1.6 or end == 2.4 for _, end in edges)
    assert found["text"] == " ".join(t for s in found["segments"] if (t := s["text"].strip()))
    srt, vtt = (sent(live, three_words(), response_format=kind).text for kind in ("srt", "vtt"))
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_pieces_cover_everything_and_none_is_too_long():
    rng = np.random.default_rng(0)
    for n in (1, RATE, RATE + 1, 3 * RATE + 7, 10 * RATE):
        samples = (rng.standard_normal(n) * np.linspace(1, 0.1, n)).astype(np.float32)    # quiet at last
        parts = list(cuts(Sound(samples, RATE, 0.0), 1.0))
        assert all(end - begin >= RATE // 4 for begin, end in parts) or n == 1
        assert [parts[0][0], parts[-1][1]] == [0, n]
        assert all(a[1] == b[0] for a, b in pairwise(parts))
        assert all(0 < end - begin <= RATE for begin, end in parts)


@pytest.mark.parametrize(("fields", "param"), [
    ({"response_format": "docx"}, "response_format"), ({"stream": "true"}, "stream"), ({"temperature": "hot"},
                                                                                      "temperature"),
    ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"), ({"colour": "red"}, "colour")])
def test_what_cannot_be_honoured(live, fields, param):
    found = sent(live, wav(0), **fields)
    assert (found.status_code, found.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("data", "says"), [(png(0), "no sound"), (b"", "no sound"), (wav(0, loud=0), "silent"),
                                            (wav(0)[:30], "no sound")])
def test_bad_recordings(live, data, says):
    found = sent(live, data)
    assert (found.status_code, found.json()["error"]["param"]) == (400, "file")
    assert says in found.json()["error"]["message"]
    assert sent(live, wav(0)).status_code == 200


def test_no_form_no_file_no_ear(live, chat_checkpoint):
    assert httpx.post(f"{live.url}/v1/audio/transcriptions", json={}).json()["error"]["param"] == "file"
    assert httpx.post(f"{live.url}/v1/audio/transcriptions", files={"x": b"y"}).status_code == 400
    served, own = live.served, live.served.perception
    served.perception = None
    try:
        assert "hears nothing" in sent(live, wav(0)).json()["error"]["message"]
    finally:
        served.perception = own
