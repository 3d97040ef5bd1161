"""Sounds as they come: any rate, stereo, compressed, silent, too long, damaged."""

import io
import struct

import numpy as np
import pytest
import soundfile

from ayllu.errors import BadMedia
from ayllu.media.sound import SoundLimits, read_sound


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440, gain: float = 0.5) -> np.ndarray:
    return (gain * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_each_format_and_rate(kind, rate):
    sound = read_sound(encoded(tone(rate=rate), rate, kind))
    assert sound.rate == 16_000
    assert sound.samples.dtype == np.float32
    assert abs(sound.seconds - 0.5) < 0.11               # MP3 adds silence at both ends
    middle = sound.samples[2000:6000]
    loudest = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * 16_000 / len(middle)
    assert abs(loudest - 440) < 8                        # the tone is still there
    assert 0.4 < np.abs(middle).max() < 0.6


def test_channels_become_one():
    left, right = tone(), tone(hertz=880)
    found = read_sound(encoded(np.stack((left, right), 1), subtype="FLOAT")).samples
    assert np.abs(found - (left + right) / 2).max() < 1e-6


def test_no_resampling_changes_nothing():
    assert np.array_equal(read_sound(encoded(tone(), subtype="FLOAT")).samples, tone())


def test_clipping_is_counted():
    assert read_sound(encoded(tone())).clipped == 0
    assert 0.1 < read_sound(encoded(np.clip(tone(gain=1.2), -1, 1))).clipped < 0.5


def _lying(data: bytes) -> bytes:
    """A WAV whose header promises four hours."""
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", 4 * 3600 * 32_000) + data[at + 4:]


BAD = {
    "empty": (b"", "it is empty"),
    "html": (b"<html>", "HTML or XML"),
    "noise": (bytes(range(256)) * 9, "no sound that can be read"),
    "silence": (encoded(np.zeros(9000, np.float32)), "is silent"),
    "clipped": (encoded(np.clip(tone(gain=4), -1, 1)), "clipped .*: record it more softly"),
    "no samples": (encoded(np.zeros(0, np.float32)), "no samples"),
    "no numbers": (encoded(np.full(900, np.nan, np.float32), subtype="FLOAT"), "no numbers"),
    "a strange rate": (encoded(tone(), 1000), "resample it"),
    "nine channels": (encoded(np.zeros((900, 9), np.float32)), "mix it down"),
    "cut off": (encoded(tone(2), kind="FLAC")[:60], "no sound|cut off|no samples"),
    "cut in its header": (encoded(tone())[:30], "no sound that can be read"),
    "a video": (b"RIFF\x00\x10\x00\x00AVI LIST", "RIFF file without sound"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sounds_are_named(name):
    data, says = BAD[name]
    with pytest.raises(BadMedia, match=says) as caught:
        read_sound(data, "call.wav")
    assert "call.wav" in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_long_ones():
    limits = SoundLimits(seconds=1)
    with pytest.raises(BadMedia, match="minutes or more"):
        read_sound(encoded(tone(1.2)), limits=limits)
    assert read_sound(encoded(tone(0.9)), limits=limits).seconds == pytest.approx(0.9)
    assert read_sound(_lying(encoded(tone()))).seconds == pytest.approx(0.5, abs=0.01)
    fine = encoded(tone(0.9, 96_000), 96_000)
    with pytest.raises(BadMedia, match="at 96,000 samples a second"):
        read_sound(fine, limits=SoundLimits(frames=80_000))
    assert read_sound(fine, limits=SoundLimits(frames=90_000)).seconds == pytest.approx(0.9)
    with pytest.raises(BadMedia, match="bytes, at most"):
        read_sound(encoded(tone()), limits=SoundLimits(n_bytes=100))
