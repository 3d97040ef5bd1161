"""An eye and an ear beside a Llama: encoders with their projectors, and the folder that holds them.

    senses = read_senses("ayllu-mini-senses")
    cat = senses.image(Path("cat.png").read_bytes(), "cat.png")
    senses.features([cat])                               # [(n, L)]: what takes the places of cat's placeholders

The folder holds senses.json (shapes, the base that it was trained beside) and senses.safetensors. The Llama's own
weights aren't in it and are never changed by it: a text without media gives the same logits to the bit.

N features  L width of the Llama
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ayllu.config import Settings, validate
from ayllu.errors import BadMedia, CheckpointError, ConfigError
from ayllu.folder import inside, read_json
from ayllu.media.audio import AudioConfig, AudioEncoder, log_mel
from ayllu.media.cross import CrossConfig, Crossing
from ayllu.media.image import read_image
from ayllu.media.pixels import Pixels, to_tensor, views
from ayllu.media.project import Projector, ProjectorConfig
from ayllu.media.sound import RATE, read_sound
from ayllu.media.store import read_module, write_module
from ayllu.media.vision import VisionConfig, VisionTransformer

Kind = Literal["image", "audio"]
STEM = "senses"
CONFIG, WEIGHTS = f"{STEM}.json", f"{STEM}.safetensors"
ADAPTER = "adapter"                                      # a folder beside them: what the Llama learned with them


class EyeConfig(Settings):
    """`depth` is the layer whose features are taken (None: the last; LLaVA takes -2). With `tiles` an image that is
    larger than pixels.size is seen as a whole and in up to so many parts of that size: more features, finer detail."""

    pixels: Pixels = Pixels()
    vision: VisionConfig
    project: ProjectorConfig
    depth: int | None = None
    tiles: int = Field(default=0, ge=0, le=36)           # most; 0: the whole alone


class EarConfig(Settings):
    """`fills` a sound with silence to audio.seconds, as Whisper hears it; else it has as many features as it is long
    (Ultravox)."""

    audio: AudioConfig
    project: ProjectorConfig
    fills: bool = True


class SensesConfig(Settings):
    """What there is of them, and beside which Llama it was trained."""

    eye: EyeConfig | None = None
    ear: EarConfig | None = None
    cross: CrossConfig | None = None                     # None: features stand in the text
    base: str = ""                                       # the base's name
    fingerprint: str = ""                                # of its weights
    licence: str | None = None
    measured: dict[str, Any] = Field(default_factory=dict)

    @property
    def most_features(self) -> dict[str, int]:
        """By kind, of the largest image and the longest sound."""
        found = {}
        if self.eye is not None:
            found["image"] = (1 + self.eye.tiles) * Projector.n_places_of(self.eye.project, self.eye.vision.n_patches)
        if self.ear is not None:
            found["audio"] = Projector.n_places_of(self.ear.project, self.ear.audio.n_places)
        return found

    def has_one_length(self, kind: str) -> bool:
        """Whether all media of a kind have as many features as the largest."""
        return not (self.eye and self.eye.tiles) if kind == "image" else self.ear is None or self.ear.fills


@dataclass(frozen=True)
class Medium:
    """One image or sound, ready for its encoder: pixels (3, S, S), those of the whole and its tiles (V, 3, S, S), or a
    spectrum (M, L). `digest` is of its content."""

    kind: Kind
    values: Tensor
    n_features: int
    digest: bytes


def _check(key: str, found: int, what: str, expected: int) -> None:
    if found != expected:
        raise ConfigError(f"{key}={found}, but {what} is {expected}: set it to that")


class Eye(nn.Module):
    """Pixels -> embeddings."""

    def __init__(self, config: EyeConfig) -> None:
        super().__init__()
        self.config = config
        _check("eye.project.width", config.project.width, "the width of the encoder", config.vision.shape.dim)
        _check("eye.pixels.size", config.pixels.size, "the image_size of the encoder", config.vision.image_size)
        self.encoder = VisionTransformer(config.vision)
        self.projector = Projector(config.project)

    def forward(self, pixels: Tensor) -> Tensor:                              # (B, 3, S, S) -> (B, N, L)
        return self.projector(self.encoder(pixels, self.config.depth))


class Ear(nn.Module):
    """Spectra -> embeddings."""

    def __init__(self, config: EarConfig) -> None:
        super().__init__()
        self.config = config
        _check("ear.project.width", config.project.width, "the width of the encoder", config.audio.shape.dim)
        self.encoder = AudioEncoder(config.audio)
        self.projector = Projector(config.project)

    def forward(self, mel: Tensor) -> Tensor:                                 # (B, M, frames) -> (B, N, L)
        return self.projector(self.encoder(mel))


class Senses(nn.Module):
    """What of eye and ear there is."""

    def __init__(self, config: SensesConfig) -> None:
        super().__init__()
        self.config = config
        self.eye = Eye(config.eye) if config.eye else None
        self.ear = Ear(config.ear) if config.ear else None
        self.cross = Crossing(config.cross) if config.cross else None

    def image(self, data: bytes, name: str = "the image") -> Medium:
        """Bytes of a file -> an image for the eye."""
        if self.config.eye is None:
            raise BadMedia(f"{name}: this model has no eye, it hears sounds only: take other senses")
        eye = self.config.eye
        image, n = read_image(data, name), Projector.n_places_of(eye.project, eye.vision.n_patches)
        values = views(image, eye.pixels, eye.tiles) if eye.tiles else to_tensor(image, eye.pixels)
        n *= len(values) if eye.tiles else 1
        return Medium("image", values, n, hashlib.sha256(b"image" + data).digest())

    def sound(self, data: bytes, name: str = "the sound") -> Medium:
        """Bytes of a file -> a sound for the ear."""
        if self.config.ear is None:
            raise BadMedia(f"{name}: this model has no ear, it sees images only: take other senses")
        audio = self.config.ear.audio
        sound = read_sound(data, name)
        if sound.seconds > audio.seconds:
            raise BadMedia(f"{name} is {sound.seconds:.1f} s long, this ear takes {audio.seconds} s: cut it into parts")
        mel = log_mel(sound.samples, audio.n_mels, audio.seconds * RATE if self.config.ear.fills else None)
        n = Projector.n_places_of(self.config.ear.project, -(-mel.shape[1] // 2))
        return Medium("audio", mel, n, hashlib.sha256(b"audio" + data).digest())

    def medium(self, kind: Kind, data: bytes, name: str) -> Medium:
        """Bytes of either kind."""
        return self.image(data, name) if kind == "image" else self.sound(data, name)

    def features(self, media: Sequence[Medium]) -> list[Tensor]:
        """(N, L) for each; all images, and all sounds of one length, are computed as one batch."""
        found: list[Tensor] = [torch.empty(0)] * len(media)
        alike: dict[tuple[str, int], list[int]] = {}
        for i, medium in enumerate(media):
            alike.setdefault((medium.kind, medium.values.shape[-1]), []).append(i)
        for (kind, _), numbers in alike.items():
            part, dims = (self.eye, 3) if kind == "image" else (self.ear, 2)
            assert part is not None                      # `image` and `sound` have said so
            batches = [media[i].values.reshape(-1, *media[i].values.shape[-dims:]) for i in numbers]
            values = torch.cat(batches).to(next(part.parameters()).dtype)
            rows = part(values).split([len(batch) for batch in batches])
            for i, row in zip(numbers, rows, strict=True):
                found[i] = row.flatten(0, 1)
        return found


def write_senses(folder: Path, senses: Senses, dtype: torch.dtype = torch.float16) -> None:
    """The folder, whole or not at all. Weights in half precision: what that changes is below what training scatters."""
    write_module(folder, senses, senses.config, STEM, dtype)


def read_config(folder: Path) -> SensesConfig:
    """What senses there are in a folder."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no senses: expected {CONFIG} and {WEIGHTS}, as ayllu align writes them")
    return validate(SensesConfig, read_json(inside(folder, CONFIG)), where=str(folder / CONFIG))


def read_senses(folder: str | Path, dtype: torch.dtype = torch.float32) -> Senses:
    """What `write_senses` left."""
    config = read_config(Path(folder))
    return read_module(Path(folder), lambda: Senses(config), STEM, dtype)
