"""Small senses with random weights, and files for them."""

import io

import numpy as np
import soundfile
import torch
from PIL import Image

from ayllu.media.audio import AudioConfig
from ayllu.media.encoder import Shape
from ayllu.media.pixels import Pixels
from ayllu.media.project import ProjectorConfig
from ayllu.media.senses import EarConfig, EyeConfig, Senses, SensesConfig, write_senses
from ayllu.media.vision import VisionConfig

SHAPE = Shape(dim=16, n_layers=1, n_heads=2, hidden_dim=32)
EYE = EyeConfig(pixels=Pixels(size=16), vision=VisionConfig(shape=SHAPE, image_size=16, patch_size=8, pools=False),
                project=ProjectorConfig(width=16, out=32))                    # 4 features
EAR = EarConfig(audio=AudioConfig(shape=SHAPE, n_mels=16, seconds=1),
                project=ProjectorConfig(width=16, out=32, gather="stack", every=10))   # 5 features


def senses_of(*, sees=True, hears=True, seed=0):
    torch.manual_seed(seed)
    senses = Senses(SensesConfig(eye=EYE if sees else None, ear=EAR if hears else None, base="tiny")).eval()
    with torch.no_grad():
        for parameter in senses.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return senses


def write_small(folder, **more):
    write_senses(folder, senses_of(**more), torch.float32)
    return folder


def png(number, size=16):
    rng, out = np.random.default_rng(number), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def wav(number, seconds=0.5, loud=0.5):
    t, out = np.arange(int(16_000 * seconds)) / 16_000, io.BytesIO()
    soundfile.write(out, loud * np.sin(2 * np.pi * (200 + 300 * number) * t), 16_000, format="WAV")
    return out.getvalue()
