"""Simple methods that `benchmarks/senses.py` compares with: logistic regression and nearest neighbours, on the pixels
or spectra that the encoder itself is given.

N items  M mel bands  F frames
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ayllu.data.media_loader import MediaSample
from ayllu.media.senses import Senses

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
FRAMES = 32
QUIET = 0.6                                              # 24 dB below the loudest: a unit of Whisper's log-mel is 40 dB


class Shown(Protocol):
    """What an item has to have."""

    text: str
    is_chinese: bool
    sample: MediaSample


def features(senses: Senses, items: Sequence[Shown]) -> np.ndarray:
    """(N, ...) pixels as they are; spectra cut to where something is heard, stretched to FRAMES, each at mean 0 and
    spread 1, so that loudness and speed don't matter."""
    found: dict[str, np.ndarray] = {}
    for item in items:
        file = item.sample.media[0]
        if file.name not in found:
            medium = senses.medium("image" if file.kind == "image" else "audio", file.read(), file.name)
            values = medium.values.numpy()
            found[file.name] = values.ravel() if medium.kind == "image" else stretched(values)
    return np.stack([found[item.sample.media[0].name] for item in items]).astype(np.float32)


def stretched(mel: np.ndarray) -> np.ndarray:                                 # (M, F) -> (M * FRAMES,)
    """A spectrum of its own length."""
    loud = mel.max(0)
    heard = np.flatnonzero(loud > loud.max() - QUIET)
    cut = mel[:, heard[0]:heard[-1] + 1]
    at = np.linspace(0, cut.shape[1] - 1, FRAMES)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, cut.shape[1] - 1)
    share = at - low
    values = cut[:, low] * (1 - share) + cut[:, high] * share
    return ((values - values.mean()) / (values.std() + 1e-6)).ravel()


def nearest(senses: Senses, held: Sequence[Shown], train: Sequence[Shown], n: int) -> list[list[str]]:
    """The texts of the nearest training rows of the same language, n different ones, nearest first."""
    known, asked = features(senses, train), features(senses, held)
    far = (asked**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * asked @ known.T          # (held, train)
    found = []
    for row, item in zip(far, held, strict=True):
        texts: list[str] = []
        for i in np.argsort(row, kind="stable"):
            if train[i].is_chinese == item.is_chinese and train[i].text not in texts:
                texts.append(train[i].text)
                if len(texts) == n:
                    break
        found.append(texts)
    return found


def logistic(senses: Senses, held: Sequence[Shown], train: Sequence[Shown]) -> list[str]:
    """Logistic regression on pixels from 0 to 1; C is the best of three on a tenth of the training rows."""
    from sklearn.linear_model import LogisticRegression

    def grey(items: Sequence[Shown]) -> np.ndarray:
        pixels = features(senses, items)
        return (pixels.reshape(len(pixels), 3, -1).mean(1) + 1) / 2

    x, y = grey(train), np.array([item.text for item in train])
    apart = np.arange(len(y)) % 10 == 0
    models = {c: LogisticRegression(C=c, max_iter=200).fit(x[~apart], y[~apart]) for c in (0.003, 0.03, 0.3)}
    best = max(models, key=lambda c: models[c].score(x[apart], y[apart]))
    return LogisticRegression(C=best, max_iter=200).fit(x, y).predict(grey(held)).tolist()
