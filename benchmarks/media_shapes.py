"""What benchmarks/media.py measures, for both workers: shapes, the picture and the sound. Imports no ayllu."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

VISION = {"image_size": 224, "patch_size": 14, "dim": 1024, "n_layers": 24, "n_heads": 16, "hidden_dim": 4096}
AUDIO = {"n_mels": 80, "seconds": 30, "dim": 768, "n_layers": 12, "n_heads": 12, "hidden_dim": 3072}
STACK = 8                                                # places of a sound that become one
TEXT: dict[str, Any] = {"dim": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "head_dim": 64, "hidden_dim": 2048,
                        "vocab_size": 32_000, "max_context": 1024}
PROMPT = 64                                              # tokens beside the features
MARK = 5                                                 # the id that stands for a feature


def picture() -> bytes:
    """A PNG file of 640 x 480."""
    out = io.BytesIO()
    y, x = np.mgrid[0:480, 0:640]
    Image.fromarray(np.stack((x % 256, y % 256, (x * y) % 256), -1).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def sound() -> np.ndarray:
    """Ten seconds at 16 kHz: an encoder of this kind fills them to thirty."""
    t = np.arange(160_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 220 * t * (1 + 0.1 * t))).astype(np.float32)


def ids(n_features: int) -> list[int]:
    """A prompt with so many marks in it."""
    words = [6 + (7919 * i) % 30_000 for i in range(PROMPT)]
    return [1, *words[:4], *[MARK] * n_features, *words[4:]]


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Its seconds."""
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}
