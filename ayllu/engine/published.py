"""From the folder of a published model that sees or hears to its senses; the Llama in it opens as any checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ayllu.checkpoint.hf import all_entries
from ayllu.checkpoint.resolve import resolve
from ayllu.checkpoint.text_side import SENSES
from ayllu.errors import CheckpointError, ConfigError
from ayllu.folder import inside, read_json, read_json_if_there
from ayllu.media.published import Part, published_senses
from ayllu.media.senses import Senses, write_senses


def open_senses(name_or_path: str | Path, encoder: str | Path | None = None) -> Senses:
    """Of LLaVA-1.5 or Ultravox; `encoder` is a folder of CLIP or Whisper where the model's own has none."""
    return published_senses(_part(name_or_path, of_a_model=True),
                            None if encoder is None else _part(encoder, of_a_model=False))


def _part(name_or_path: str | Path, of_a_model: bool) -> Part:
    """Of a whole model only eye, ear and projector are read."""
    folder = resolve(name_or_path)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: name the folder of a published model")
    entries = all_entries(folder)
    tensors = {name: entry.read() for name, entry in entries.items() if not of_a_model or SENSES.search(name)}
    return Part(read_json(inside(folder, "config.json")), tensors,
                read_json_if_there(folder, "preprocessor_config.json") or {})


@dataclass(frozen=True)
class MadeSenses:
    """What `convert_senses` wrote."""

    path: str
    sees: bool
    hears: bool
    features: dict[str, int]                             # of an image, and of the longest sound
    n_bytes: int


def convert_senses(name_or_path: str | Path, path: Path, encoder: str | Path | None = None,
                   overwrite: bool = False) -> MadeSenses:
    """A folder of senses as `ayllu align` writes them, in float32 where half precision would lose something."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: name a new folder, or pass --overwrite")
    senses = open_senses(name_or_path, encoder)
    exact = all(torch.equal(tensor.half().float(), tensor) for tensor in senses.state_dict().values())
    write_senses(path, senses, torch.float16 if exact else torch.float32)
    eye, ear = senses.config.eye, senses.config.ear
    return MadeSenses(str(path), eye is not None, ear is not None, senses.config.most_features,
                      sum(file.stat().st_size for file in path.iterdir()))
