"""Senses beside a model: from a conversation with images and sounds to ids with placeholders and what they show.

    perception = Perception("ayllu-mini-senses", llm.tokenizer, llm.config.dim)
    turns, shown = perception.read([{"role": "user", "content": [image_part("cat.png"), ...]}])
    ids, media = perception.placed(ids of the turns, shown)

Weights are read when the first image or sound comes. Features are kept by the digest of the file, so that a
conversation that goes on decodes nothing twice; each file is encoded alone, so that its features are the same to the
bit in any company. Used from any thread.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu.checkpoint.resolve import BUNDLED_SENSES, bundled
from ayllu.engine.parts import Fetch, Part, has_media, taken_out
from ayllu.engine.request import Media
from ayllu.errors import CheckpointError, ConfigError, RequestError
from ayllu.log import say
from ayllu.media.fast import fast
from ayllu.media.marks import mark_ids, marks_of
from ayllu.media.senses import ADAPTER, Senses, read_config, read_senses
from ayllu.media.splice import expanded
from ayllu.text.tokenizer import Tokenizer

KEPT_BYTES = 256 * 2**20                                 # of features
BLIND = "this model reads text only: give it senses (--senses FOLDER), or leave images and sounds out"
LOOKING = "ayllu.senses"                                 # the name of their adapter in an engine
Shown = tuple[bytes, np.ndarray]                         # a file's digest, its features (n, L)


class Perception:
    """The senses of one model."""

    def __init__(self, senses: Senses | str | Path, tokenizer: Tokenizer, width: int, *, fingerprint: str = "",
                 device: str | torch.device = "cpu") -> None:
        """`width` and `fingerprint` are the model's: senses of another width don't fit, those of another model say so.
        `senses`: a folder, a name, or in memory."""
        self._senses = senses if isinstance(senses, Senses) else None
        self.folder = None if isinstance(senses, Senses) else folder_of(senses)
        self.config = senses.config if isinstance(senses, Senses) else read_config(folder_of(senses))
        if self.config.cross:
            raise CheckpointError(f"{self.folder or 'these'}: senses with gated cross-attention, which ayllu align "
                                  "trains and nothing else computes yet: take some without [cross]")
        self.device = torch.device(device)
        for name, part in (("eye", self.config.eye), ("ear", self.config.ear)):
            if part is not None and part.project.out != width:
                raise ConfigError(f"the {name} of {self.folder or 'these senses'} speaks to a model of width "
                                  f"{part.project.out} ({self.config.base}), this one has {width}: take senses that "
                                  "were trained beside it")
        if fingerprint and self.config.fingerprint not in ("", fingerprint):
            say(f"these senses were trained beside {self.config.base} with other weights: what they say may be wrong")
        self.marks, self.mark_ids = marks_of(tokenizer), mark_ids(tokenizer)
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._n_kept = 0
        self._lock = threading.Lock()                    # one file at a time: what decoding takes is bounded

    @property
    def adapter(self) -> Path | None:
        """The adapter of the model that learned with them, for conversations that show something."""
        return None if self.folder is None else adapter_of(self.folder)

    @property
    def sees(self) -> bool:
        """Whether it takes images."""
        return self.config.eye is not None

    @property
    def hears(self) -> bool:
        """Whether it takes sounds."""
        return self.config.ear is not None

    @property
    def ear_s(self) -> float:
        """Seconds of sound that it takes at a time."""
        return self.config.ear.audio.seconds if self.config.ear else 0.0

    def read(self, messages: Sequence[Mapping[str, Any]], fetch: Fetch | None = None
             ) -> tuple[list[dict[str, Any]], list[Shown]]:
        """Messages of texts with stand-ins, and what these show. BadMedia says what is wrong with a file."""
        turns, parts = taken_out(messages, fetch)
        return turns, [self.shown(part) for part in parts]

    def shown(self, part: Part) -> Shown:
        """One image or sound, from what is kept or anew."""
        digest = hashlib.sha256(part.kind.encode() + part.data).digest()
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return digest, self._kept[digest]
            self._kept[digest] = features = self._features(part)
            self._n_kept += features.nbytes
            while self._n_kept > KEPT_BYTES and len(self._kept) > 1:
                self._n_kept -= self._kept.popitem(last=False)[1].nbytes
        return digest, features

    def placed(self, ids: Sequence[int], shown: Sequence[Shown]) -> tuple[list[int], tuple[Media, ...]]:
        """Ids with as many placeholders as features, and where these lie."""
        if not shown:
            return list(ids), ()
        wide, places = expanded(ids, self.mark_ids, [len(features) for _, features in shown])
        return wide, tuple(Media(place.start, place.length, *shown[place.number]) for place in places)

    def _features(self, part: Part) -> np.ndarray:
        if self._senses is None:
            assert self.folder is not None
            self._senses = fast(read_senses(self.folder).to(self.device))
        medium = self._senses.medium(part.kind, part.data, part.name)
        with torch.inference_mode():
            return self._senses.features([medium])[0].float().cpu().numpy()


def read_by(perception: Perception | None, messages: Sequence[Mapping[str, Any]], fetch: Fetch | None = None
            ) -> tuple[list[dict[str, Any]], list[Shown]]:
    """The same where there may be no senses; then there may be no images and sounds either."""
    if perception is not None:
        return perception.read(messages, fetch)
    if has_media(messages):
        raise RequestError(BLIND)
    return taken_out(messages)[0], []


def adapter_of(senses: Path) -> Path | None:
    """The adapter in a folder of senses."""
    return senses / ADAPTER if (senses / ADAPTER).is_dir() else None


def folder_of(name: str | Path) -> Path:
    """The folder of senses, which may be named as those that come with the package."""
    return bundled(BUNDLED_SENSES) if str(name) == BUNDLED_SENSES and not Path(name).exists() else Path(name)
