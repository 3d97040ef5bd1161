"""Log-mel spectra, and Whisper's encoder over them (arXiv:2212.04356).

B sounds  M mel bands  L frames of 10 ms  N places after the second convolution, L / 2  D width
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.errors import BadMedia
from ayllu.media.encoder import Layer, Shape
from ayllu.media.sound import RATE

WINDOW, HOP = 400, 160                                   # samples of a frame, and from one to the next: 25 and 10 ms
FLOOR = 1e-10                                            # the least power, before its logarithm
RANGE = 8.0                                              # powers of ten below the loudest that are told apart


class AudioConfig(Settings):
    """`seconds` is the longest sound of one pass. Whisper was trained on sounds that were filled to it; one that isn't
    filled has fewer places."""

    shape: Shape
    n_mels: int = 80
    seconds: int = 30

    @property
    def n_places(self) -> int:
        """Of the longest sound."""
        return self.seconds * RATE // HOP // 2


def log_mel(samples: np.ndarray, n_mels: int = 80, length: int | None = None) -> Tensor:
    """(n,) samples at 16 kHz -> (M, n // 160) float32. `length` fills with silence to so many samples first.

    Powers of a Hann window's Fourier transform, summed into mel bands, as log10, cut RANGE below the loudest, and
    brought to about -1 to 1: (x + 4) / 4.
    """
    wave = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    if length is not None:
        if len(wave) > length:
            raise BadMedia(f"{len(wave) / RATE:.1f} s of sound for a pass of {length / RATE:g} s: cut it into parts")
        wave = F.pad(wave, (0, length - len(wave)))
    if len(wave) < WINDOW:
        raise BadMedia(f"the sound has {len(wave)} samples at {RATE} Hz, at least {WINDOW} are needed (25 ms)")
    spectrum = torch.stft(wave, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    power = (spectrum[:, :-1].abs() ** 2).contiguous()                        # (WINDOW / 2 + 1, L)
    logs = (mel_bands(n_mels) @ power).clamp(min=FLOOR).log10()
    return (torch.maximum(logs, logs.max() - RANGE) + 4) / 4


@functools.lru_cache
def mel_bands(n_mels: int, top: float = RATE / 2) -> Tensor:
    """(M, WINDOW / 2 + 1): triangles at equal steps of Slaney's mel scale, each of area 1 in Hz."""
    edges = _to_hertz(np.linspace(0, _to_mel(top), n_mels + 2))               # (M + 2,)
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(triangles.astype(np.float32))


def _to_mel(hertz: float) -> float:
    """Slaney's scale: linear to 1000 Hz, where it is 15, logarithmic above: 27 steps for a factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))


def sines(n: int, dim: int) -> Tensor:
    """Whisper's places (N, D): sines of all frequencies, then their cosines."""
    step = math.log(10_000) / (dim // 2 - 1)
    angles = torch.arange(n)[:, None].float() * torch.exp(-step * torch.arange(dim // 2).float())
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class AudioEncoder(nn.Module):
    """Log-mel spectra -> features, one for each 20 ms."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.shape.dim
        self.conv1 = nn.Conv1d(config.n_mels, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.places = nn.Parameter(sines(config.n_places, dim), requires_grad=False)
        self.layers = nn.ModuleList(Layer(config.shape) for _ in range(config.shape.n_layers))
        self.last_norm = nn.LayerNorm(dim, config.shape.norm_eps)

    def forward(self, mel: Tensor) -> Tensor:                                 # (B, M, L) -> (B, ceil(L / 2), D)
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).mT                    # (B, N, D)
        if x.shape[1] > self.config.n_places:
            raise BadMedia(f"{mel.shape[-1]} frames, and this encoder takes {2 * self.config.n_places}: cut the sound "
                           f"into parts of {self.config.seconds} s")
        x = x + self.places[:x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.last_norm(x)
