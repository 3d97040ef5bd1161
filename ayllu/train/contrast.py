"""`ayllu align` with method="contrast": texts, images and sounds in one space, for `ayllu search`.

The Llama reads the texts once, before training; what learns is eye and ear, and the small network over what it made of
them. In each step a medium stands beside one of its texts, drawn anew.

B media of a batch  A texts of a batch  N held-out media  M texts  L width of the Llama  S of the space
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ayllu import dist
from ayllu.adapters.lora import fingerprint
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.data.media_jitter import jittered
from ayllu.data.media_loader import MediaReader
from ayllu.data.media_rows import MediaFile, MediaRow
from ayllu.data.order import Order
from ayllu.data.rows import Reject
from ayllu.errors import ConfigError, DataError
from ayllu.log import say
from ayllu.media.senses import EarConfig, EyeConfig, Medium, SensesConfig
from ayllu.media.space import Contrast, Space, SpaceConfig, contrast, text_states, write_space
from ayllu.model.build import CausalModel
from ayllu.model.llama import Llama
from ayllu.train.align import first_values, path_of, position, pretrained, rows_of
from ayllu.train.align_config import AlignLoop, MediaData
from ayllu.train.course import begun, follow, new_state, reached, taken_up, whole_models
from ayllu.train.losses import Loss
from ayllu.train.recipe import Recipe
from ayllu.train.run_folder import Resume
from ayllu.train.state import TrainState


class ContrastRecipe(Recipe):
    """Rows are those of `ayllu align`; those of one medium are its texts. project.out is the width of the space."""

    method: Literal["contrast"]
    base: str                                            # the Llama that reads the texts
    eye: EyeConfig | None = None
    ear: EarConfig | None = None
    eye_weights: str | None = None                       # a folder of CLIP, SigLIP or own senses, with its shape
    ear_weights: str | None = None                       # a folder of Whisper or own senses
    by: Contrast = "siglip"                              # the loss
    others: int = Field(default=0, ge=0)                 # texts drawn for a batch beside those of its own media
    text_hidden: int = Field(default=512, gt=0)
    data: MediaData
    epochs: float = Field(default=10.0, gt=0)
    loop: AlignLoop = AlignLoop(batch_size=128, micro_batch=128)

    @model_validator(mode="after")
    def _whole_batches(self) -> "ContrastRecipe":
        if self.eye is None and self.ear is None:
            raise ValueError("there is no eye and no ear: give [eye] or [ear]")
        if self.loop.micro_batch != self.loop.batch_size:
            raise ValueError("a batch is compared within itself: set loop.micro_batch to loop.batch_size")
        return self


@dataclass(frozen=True)
class Pairs:
    """Media, and for each the numbers of its texts."""

    files: tuple[MediaFile, ...]
    texts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ContrastBatch:
    """Text i is one of medium i's; those after the B-th are others. `same` tells which are true of which media."""

    media: tuple[Medium, ...]
    states: Tensor                                       # (A, 2 L)
    same: Tensor                                         # (B, A)

    def __len__(self) -> int:
        return len(self.media)

    def split(self, rows: int) -> Iterator["ContrastBatch"]:
        """Itself: pairs are compared within the whole."""
        yield self

    def to(self, device: torch.device) -> "ContrastBatch":
        """On another device."""
        media = tuple(replace(m, values=m.values.to(device)) for m in self.media)
        return ContrastBatch(media, self.states.to(device), self.same.to(device))


@dataclass
class ContrastLoader:
    """Each medium once in an epoch, beside one of its texts by the seed and the step."""

    pairs: Pairs
    states: Tensor                                       # (M, 2 L)
    reader: MediaReader
    config: ContrastRecipe
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.order = Order([len(self.pairs.files)], None, self.config.seed)

    def batch(self, step: int) -> ContrastBatch:
        """Those of this rank for one step."""
        size, rng = self.config.loop.batch_size, np.random.default_rng([self.config.seed, step, self.rank])
        media, texts, own = [], [], []
        for number, _ in self.order.of_step(step, size, self.rank, self.world_size):
            medium = self.reader.medium(self.pairs.files[number], "training")
            media.append(jittered(medium, self.config.data.jitter, rng))
            own.append(self.pairs.texts[number])
            texts.append(int(rng.choice(own[-1])))
        texts += rng.integers(0, len(self.states), self.config.others).tolist()
        same = torch.from_numpy(np.array([np.isin(texts, numbers) for numbers in own]))
        return ContrastBatch(tuple(media), self.states[texts], same)


def contrast_loss(model: CausalModel, batch: ContrastBatch, kind: Contrast) -> Loss:
    """Sum over the media of a batch."""
    space = cast(Space, model)
    each = contrast(space, space.media(batch.media), space.texts(batch.states), batch.same, kind)
    return Loss(each.sum(), torch.tensor(float(len(batch)), device=each.device), each.detach())


def collected(rows: Iterator[MediaRow | Reject], drop: bool) -> tuple[list[str], Pairs]:
    """The texts, and which belong to which medium; a row's text is its last answer."""
    texts: dict[str, int] = {}
    media: dict[tuple[int, str], tuple[MediaFile, list[int]]] = {}
    times: dict[tuple[int, str], int] = {}
    for row in rows:
        if isinstance(row, Reject):
            if not drop:
                raise DataError(f"{row.file}, row {row.line}: {row.reason}; correct it, or set data.bad_rows=drop")
            continue
        text = str(row.messages[-1]["content"]).strip()
        number = texts.setdefault(text, len(texts))
        for file in row.media:
            key = (id(file.folder), file.name)
            _, own = media.setdefault(key, (file, []))
            times[key] = max(row.times, times.get(key, 1))
            if number not in own:
                own.append(number)
    found = [(file, tuple(own)) for key, (file, own) in media.items() for _ in range(times[key])]
    return list(texts), Pairs(tuple(file for file, _ in found), tuple(own for _, own in found))


def apart_by_name(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    """What is learned and what is held out, by a fixed hash of the media's names."""
    sides: tuple[list[int], list[int]] = ([], [])
    for i, file in enumerate(pairs.files):
        sides[position((file,)) < share].append(i)
    learned, held = (Pairs(tuple(pairs.files[i] for i in side), tuple(pairs.texts[i] for i in side)) for side in sides)
    return learned, held


@torch.no_grad()
def found_among(space: Space, loader: ContrastLoader, rows: int = 64) -> dict[str, float]:
    """Held-out media and their texts, searched for among each other: the share of right ones among the first 1 and 5 of
    all N media for a text, and of all its texts for a medium."""
    device, was_training = next(space.parameters()).device, space.training
    space.eval()
    files, own = loader.pairs.files, loader.pairs.texts
    used = sorted({number for numbers in own for number in numbers})
    media = torch.cat([space.media([replace(m, values=m.values.to(device)) for m in
                                    (loader.reader.medium(file, "held out") for file in files[at:at + rows])])
                       for at in range(0, len(files), rows)])                 # (N, S)
    texts = space.texts(loader.states[used].to(device))                       # (M, S)
    true = torch.tensor([[number in numbers for number in used] for numbers in map(set, own)], device=device)
    scores = media @ texts.mT                                                 # (N, M)
    space.train(was_training)
    found = {}
    for name, s, t in (("text_to_media", scores.mT, true.mT), ("media_to_text", scores, true)):
        for k in (1, 5):
            hits = t.gather(1, s.topk(min(k, s.shape[1]), 1).indices).any(1)
            found[f"{name}_top{k}"] = float(hits.float().mean())
    return found


def contrast_train(config: ContrastRecipe, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run to the end and write RUN/space; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: ContrastRecipe, folder: Path, resume: Resume, device: torch.device) -> dict[str, Any]:
    run, drop = Path(config.out), config.data.bad_rows == "drop"
    texts, pairs = collected(rows_of(config.data, folder, config.data.sources), drop)
    held_texts, held = collected(rows_of(config.data, folder, config.data.held_out), drop)
    if not config.data.held_out:
        held_texts, (pairs, held) = texts, apart_by_name(pairs, config.data.held_out_share)
    if len(pairs.files) < config.loop.batch_size:
        raise DataError(f"{len(pairs.files)} media, fewer than loop.batch_size={config.loop.batch_size}: give more, or "
                        "lower it")
    steps = config.loop.steps or max(1, round(config.epochs * len(pairs.files) / config.loop.batch_size))
    config = config.with_loop(steps=steps)
    space, states, held_states = _first(config, folder, texts, held_texts, device)
    layout = whole_models(config, open_checkpoint(path_of(config.base, folder)).config, folder, device, "a space",
                          lambda: {"media": len(pairs.files), "texts": len(texts), "held_out": len(held.files)})
    digest = hashlib.sha256("\0".join([*texts, *(file.name for file in pairs.files)]).encode()).hexdigest()[:16]
    state = new_state(config, space, layout, data=digest, base=space.config.senses.fingerprint)
    reader = MediaReader(space.senses)
    batches = ContrastLoader(pairs, states, reader, config, layout.data_rank, layout.data)
    apart = ContrastLoader(held, held_states, reader, config) if held.files else None
    resumed = taken_up(config, state, resume)

    def results(state: TrainState) -> dict[str, Any]:
        return dict(found_among(cast(Space, state.model), apart)) if apart else {}

    last = follow(config, state, batches, lambda model, batch: contrast_loss(model, batch, config.by), 1, resumed,
                  device, lambda state: ([], results(state)), results)
    with state.averaged():
        if dist.is_main():
            measured = {key: value for key, value in last.items() if "_top" in key}
            space.config = space.config.model_copy(update={"measured": measured})
            write_space(run / "space", space)
    return reached(state, last, run=str(run), space=str(run / "space"))


def _first(config: ContrastRecipe, folder: Path, texts: list[str], held: list[str],
           device: torch.device) -> tuple[Space, Tensor, Tensor]:
    """A space with first values, and what the Llama makes of the texts."""
    source = open_checkpoint(path_of(config.base, folder))
    tokenizer, body = source.open_tokenizer(), build_model(source, dtype=torch.float32, device=device)
    if tokenizer is None or not isinstance(body, Llama):
        raise ConfigError(f"{config.base} should be a Llama with a tokenizer")
    eye, eyes = pretrained(config.eye, config.eye_weights, folder)
    ear, ears = pretrained(config.ear, config.ear_weights, folder)
    senses = SensesConfig(eye=eye, ear=ear, base=config.base, fingerprint=fingerprint(body), licence=config.licence)
    torch.manual_seed(config.seed)
    space = Space(SpaceConfig(senses=senses, text_width=2 * body.config.dim, text_hidden=config.text_hidden))
    first_values(space.senses)
    for part, encoder in ((space.senses.eye, eyes), (space.senses.ear, ears)):
        if part is not None and encoder is not None:
            part.encoder = encoder
    say(f"{len(texts) + len(held):,} texts are read by {config.base}")
    return space.to(device), text_states(body, tokenizer, texts), text_states(body, tokenizer, held)
