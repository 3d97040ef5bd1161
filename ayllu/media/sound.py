"""From the bytes of a sound file to one channel of samples at an encoder's rate.

soundfile (libsndfile) decodes WAV, FLAC, OGG and MP3, soxr changes the rate. What the header promises is checked before
anything is decoded, and what comes is counted while it comes, since headers lie.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayllu.errors import BadMedia, MissingExtra, extra

RATE = 16_000                                            # samples per second that Whisper and most encoders hear
BLOCK = 1 << 18                                          # frames read at a time
CLIPPED, MOST_CLIPPED = 0.999, 0.5                       # of full scale; share of samples there: words are gone
QUIET = 1e-4                                             # a peak below: nobody hears anything


@dataclass(frozen=True)
class SoundLimits:
    """What is taken. A frame, one sample of each channel, costs 4 to 8 bytes once it is decoded."""

    n_bytes: int = 64 * 2**20
    seconds: float = 30 * 60
    frames: int = 30 * 60 * 48_000                       # at higher rates a sound may be less long
    channels: int = 8
    rates: tuple[int, int] = (4_000, 384_000)


@dataclass(frozen=True)
class Sound:
    """`samples` (n,) float32, mostly within -1 to 1, at `rate`."""

    samples: np.ndarray
    rate: int
    clipped: float                                       # share of samples at full scale

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


def read_sound(data: bytes, name: str = "the sound", limits: SoundLimits | None = None, rate: int = RATE) -> Sound:
    """One channel, the mean of all, at `rate`. `name` is what an error calls it."""
    limits = limits or SoundLimits()
    if len(data) > limits.n_bytes:
        raise BadMedia(f"{name} has {len(data):,} bytes, at most {limits.n_bytes:,} are taken: cut it, or store it as "
                       "FLAC or OGG")
    mono, own = _decoded(data, name, limits)
    if not np.isfinite(mono).all():
        raise BadMedia(f"{name} holds samples that are no numbers: it is damaged; save it again")
    peak = float(np.abs(mono).max(initial=0))
    if peak < QUIET:
        raise BadMedia(f"{name} is silent ({len(mono) / own:.1f} s, its loudest sample is {peak:.1e} of full scale): "
                       "check the microphone, or give another file")
    clipped = float((np.abs(mono) >= CLIPPED).mean())
    if clipped > MOST_CLIPPED:
        raise BadMedia(f"{name} is clipped ({clipped:.0%} of its samples are at full scale): record it more softly")
    return Sound(resampled(mono, own, rate), rate, clipped)


def resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """(n,) float32 at another rate, as long in time."""
    if own == rate:
        return samples
    with extra("media", f"bringing a sound from {own} Hz to {rate} Hz"):
        import soxr
    return np.asarray(soxr.resample(samples, own, rate, quality="HQ"), np.float32)


def _decoded(data: bytes, name: str, limits: SoundLimits) -> tuple[np.ndarray, int]:
    """The mean of the channels, and the file's rate."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise MissingExtra("sounds need soundfile: pip install 'ayllu[media]'") from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check(file, name, limits)
            return _read(file, name, limits), file.samplerate
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        why = error.error_string if isinstance(error, soundfile.LibsndfileError) else error     # without an address
        raise BadMedia(f"{name} is no sound that can be read ({_kind(data)}; {why}): give WAV, FLAC, OGG or "
                       "MP3") from error


def _check(file: Any, name: str, limits: SoundLimits) -> None:
    low, high = limits.rates
    if not low <= file.samplerate <= high:
        raise BadMedia(f"{name} has {file.samplerate} samples a second, {low} to {high} are taken: resample it")
    if file.channels > limits.channels:
        raise BadMedia(f"{name} has {file.channels} channels, at most {limits.channels} are taken: mix it down")
    if file.frames == 0:
        raise BadMedia(f"{name} holds no samples: record it again")
    if 0 < file.frames < 2**62:
        _check_length(file.frames, file.samplerate, name, limits)


def _read(file: Any, name: str, limits: SoundLimits) -> np.ndarray:
    blocks, n = [], 0
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)            # (n, channels)
        if not len(block):
            break
        n += len(block)
        _check_length(n, file.samplerate, name, limits)
        blocks.append(block.mean(axis=1))
    if not blocks:
        raise BadMedia(f"{name} holds no samples: it is cut off; save it again")
    return np.concatenate(blocks)


def _check_length(frames: int, rate: int, name: str, limits: SoundLimits) -> None:
    most = min(limits.seconds, limits.frames / rate)
    if frames / rate > most:
        raise BadMedia(f"{name} is {frames / rate / 60:.1f} minutes or more, at most {most / 60:.3g} are taken at "
                       f"{rate:,} samples a second: cut it into parts")


def _kind(data: bytes) -> str:
    if not data:
        return "it is empty"
    if data[:4] == b"RIFF" and data[8:12] != b"WAVE":
        return "a RIFF file without sound"
    return "HTML or XML" if data.lstrip()[:1] == b"<" else f"it begins with {data[:8]!r}"
