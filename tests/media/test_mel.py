"""Log-mel spectra beside those of transformers' Whisper, and the mel bands beside their formula, one by one."""

import numpy as np
import pytest
import torch

from ayllu.errors import BadMedia
from ayllu.media.audio import RATE, log_mel, mel_bands


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonics that come and go, and noise."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * 110 * k * t + k) / k for k in range(1, 30))
    return (0.1 * tones * (1 + np.sin(2 * np.pi * 3 * t)) + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.5, 7.3, 30])
def test_log_mel_is_transformers(seconds, n_mels):
    from transformers import WhisperFeatureExtractor
    wave = voice(seconds)
    theirs = WhisperFeatureExtractor(feature_size=n_mels)(wave, sampling_rate=RATE, return_tensors="np")
    ours = log_mel(wave, n_mels, 30 * RATE)
    assert ours.shape == (n_mels, 3000)
    assert np.abs(ours.numpy() - theirs["input_features"][0]).max() < 1e-4   # float32 here, float64 in parts there


def test_bands_are_triangles():
    """The slow, obvious twin: each band's rise and fall written out."""
    def hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + np.log(8) / np.log(6.4) * 27
    edges = [hertz(top * i / 81) for i in range(82)]
    bands = mel_bands(80)
    for band in (0, 17, 40, 79):
        low, middle, high = edges[band:band + 3]
        for place in range(201):
            f = place * 40.0
            height = 0.0
            if low < f <= middle:
                height = (f - low) / (middle - low)
            elif middle < f < high:
                height = (high - f) / (high - middle)
            assert bands[band, place].item() == pytest.approx(2 / (high - low) * height, abs=1e-7)


def test_what_cannot_be_heard():
    with pytest.raises(BadMedia, match="25 ms"):
        log_mel(np.zeros(399, np.float32))
    with pytest.raises(BadMedia, match="cut it into parts"):
        log_mel(voice(2), length=RATE)
    assert torch.isfinite(log_mel(np.zeros(800, np.float32))).all()
