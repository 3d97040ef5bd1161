"""One space for texts, images and sounds, where what belongs together lies together: contrastive training, for search.

Images and sounds: the mean of their projected features. Texts: a small network over what a frozen Llama makes of them.
All vectors have length 1. The losses are CLIP's (arXiv:2103.00020) and SigLIP's (arXiv:2303.15343).

N texts or media  B of a batch  L width of the Llama  S of the space
"""

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ayllu.config import Settings, validate
from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.folder import inside, read_json
from ayllu.media.senses import Medium, Senses, SensesConfig
from ayllu.media.store import read_module, write_module
from ayllu.model.llama import Llama
from ayllu.text.tokenizer import Tokenizer

STEM = "space"
CONFIG, WEIGHTS = f"{STEM}.json", f"{STEM}.safetensors"
Contrast = Literal["siglip", "clip"]
ROWS = 256                                               # texts that the Llama reads at a time


class SpaceConfig(Settings):
    """`senses` give features as wide as the space; `text_width` is twice that of the Llama `senses.base`."""

    senses: SensesConfig
    text_width: int
    text_hidden: int = 512
    measured: dict[str, Any] = Field(default_factory=dict)

    @property
    def width(self) -> int:
        """S."""
        outs = {part.project.out for part in (self.senses.eye, self.senses.ear) if part is not None}
        if len(outs) != 1:
            raise ConfigError(f"one space needs an eye or an ear, with one project.out: found {sorted(outs)}")
        return outs.pop()


class Space(nn.Module):
    """Texts and media -> unit vectors."""

    def __init__(self, config: SpaceConfig) -> None:
        super().__init__()
        self.config = config
        self.senses = Senses(config.senses)
        self.text = nn.Sequential(nn.Linear(config.text_width, config.text_hidden), nn.GELU(),
                                  nn.Linear(config.text_hidden, config.width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))           # SigLIP's first values
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def media(self, media: Sequence[Medium]) -> Tensor:                       # (N, S)
        """Of images and sounds, in their order."""
        return F.normalize(torch.stack([rows.mean(0) for rows in self.senses.features(media)]), dim=-1)

    def texts(self, states: Tensor) -> Tensor:                                # (N, 2 L) -> (N, S)
        """Of what `text_states` gives."""
        return F.normalize(self.text(states), dim=-1)


@torch.inference_mode()
def text_states(body: Llama, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:      # (N, 2 L)
    """The mean embedding of a text's tokens beside the mean of what the Llama makes of them, each brought to one scale.
    Case and compatibility forms make no difference."""
    rows = tokenizer.encode_batch([unicodedata.normalize("NFKC", text).casefold().strip() or " " for text in texts])
    found, device = torch.empty(len(texts), 2 * body.config.dim), next(body.parameters()).device
    alike: dict[int, list[int]] = {}
    for i, ids in enumerate(rows):
        if len(ids) > body.config.max_context:
            raise DataError(f"{texts[i][:60]!r}... has {len(ids):,} tokens, and the Llama of this space reads "
                            f"{body.config.max_context:,}: shorten it")
        alike.setdefault(len(ids), []).append(i)
    for numbers in alike.values():
        for at in range(0, len(numbers), ROWS):
            part = numbers[at:at + ROWS]
            x = body.embed(torch.tensor([rows[i] for i in part], device=device))
            both = (F.layer_norm(t.float().mean(1), t.shape[-1:]) for t in (x, body.trunk(x)))
            found[part] = torch.cat(tuple(both), -1).cpu()
    return found.clone()                                 # no inference tensor: training reads it


def contrast(space: Space, media: Tensor, texts: Tensor, same: Tensor, kind: Contrast) -> Tensor:
    """(B,) losses of media (B, S) and texts (A, S), unit vectors: text i belongs to medium i, those after the B-th are
    further ones. `same` (B, A) tells which text is true of which medium, its own at least.

    SigLIP asks of each pair whether it belongs together; CLIP which of all texts belongs to a medium, and which medium
    to a text (where several do, each has an equal share).
    """
    scores, B = space.log_scale.exp() * media @ texts.mT, len(media)          # (B, A)
    if kind == "siglip":
        return -F.logsigmoid((scores + space.bias) * (2 * same.float() - 1)).sum(1)
    own, true = scores[:, :B].log_softmax(0), same[:, :B].float()             # a further text may have no medium here
    return -((same.float() / same.sum(1, keepdim=True) * scores.log_softmax(1)).sum(1)
             + (true / true.sum(0) * own).sum(1)) / 2


def write_space(folder: Path, space: Space, dtype: torch.dtype = torch.float16) -> None:
    """The folder, whole or not at all."""
    write_module(folder, space, space.config, STEM, dtype)


def read_space(folder: Path) -> Space:
    """What `write_space` left."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} holds no space to search in: expected {CONFIG} and {WEIGHTS}, as ayllu align "
                              "writes them with method=\"contrast\"")
    config = validate(SpaceConfig, read_json(inside(folder, CONFIG)), where=str(folder / CONFIG))
    return read_module(folder, lambda: Space(config), STEM)
