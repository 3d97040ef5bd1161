"""`ayllu align`: an eye or an ear learns to say what it perceives in the words of a Llama, by the one loop.

The Llama stays as it was unless learns=adapter or all. What a run leaves is RUN/senses and, where they learned,
RUN/senses/adapter or RUN/model.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from ayllu import dist
from ayllu.adapters.lora import Adapter, attach, check_fits, fingerprint, new_adapter, taken
from ayllu.adapters.store import read_adapter, write_adapter
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.safefile import read_safetensors
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.data.chats import ends, template_of
from ayllu.data.media_loader import MediaLoader, MediaSample, counter, samples
from ayllu.data.media_rows import MediaFile, MediaRow, media_rows
from ayllu.data.rows import Reject
from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.folder import read_json
from ayllu.log import warn
from ayllu.media.cross import CrossConfig
from ayllu.media.encoder import Shape
from ayllu.media.names import audio_from, vision_from
from ayllu.media.senses import ADAPTER, EyeConfig, Senses, SensesConfig, read_senses, write_senses
from ayllu.media.senses import CONFIG as SENSES
from ayllu.media.space import CONFIG as SPACE
from ayllu.media.space import Space, read_space
from ayllu.model.llama import Llama
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.align_config import AlignRecipe, MediaData, MediaSource
from ayllu.train.align_loss import Aligned, align_loss, held_out
from ayllu.train.course import begun, follow, new_state, reached, taken_up, whole_models
from ayllu.train.export import export
from ayllu.train.run_folder import Resume
from ayllu.train.state import TrainState

SHOWN = 3


@dataclass(frozen=True)
class MediaLesson:
    """What is learned from, before the first weight is read."""

    source: OpenCheckpoint
    tokenizer: Tokenizer
    template: ChatTemplate
    senses: Senses
    train: list[MediaSample]
    held_out: list[MediaSample]
    rejects: list[Reject]

    @property
    def digest(self) -> str:
        """Changes with every id, weight and file name."""
        found = hashlib.sha256()
        for sample in self.train:
            found.update(sample.ids.tobytes() + sample.weights.tobytes())
            found.update(b"" if sample.text is None else sample.text.ids.tobytes())
            found.update("\0".join(file.name for file in sample.media).encode())
        return found.hexdigest()[:16]


def prepared_media(config: AlignRecipe, folder: Path) -> tuple[AlignRecipe, MediaLesson]:
    """The recipe with its steps counted, and all that it learns from."""
    source = open_checkpoint(path_of(config.base, folder))
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{source.path} has no tokenizer: put tokenizer.json or tokenizer.model beside its weights")
    template = template_of(config.template, tokenizer, folder)
    if template is None:
        raise ConfigError("template=plain has no turns to put an image in: name a chat template")
    senses = new_senses(config, folder, source)
    length = counter(senses)

    def read(sources: tuple[MediaSource, ...]) -> tuple[list[MediaSample], list[Reject]]:
        return samples(rows_of(config.data, folder, sources), tokenizer, template, length, config.context,
                       with_text=config.kl is not None)

    found, rejects = read(config.data.sources)
    apart, more = read(config.data.held_out)
    train = found
    if not config.data.held_out:
        apart = [s for s in found if position(s.media) < config.data.held_out_share]
        train = [s for s in found if position(s.media) >= config.data.held_out_share]
    rejects += more
    _check(config, train, rejects)
    steps = config.loop.steps or max(1, round(config.epochs * len(train) / config.loop.batch_size))
    config = config.with_loop(steps=steps)
    return config, MediaLesson(source, tokenizer, template, senses, train, apart, rejects)


def path_of(name: str, folder: Path) -> str | Path:
    """Beside the recipe where it is there, else a name."""
    return folder / name if (folder / name).exists() else name


def position(media: Sequence[MediaFile]) -> float:
    """Between 0 and 1, by the names of its media: pictures that are shown in several rows are on one side."""
    said = "\0".join(file.name for file in media)
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "little") / 2**64


def rows_of(data: MediaData, folder: Path, sources: tuple[MediaSource, ...]) -> Iterator[MediaRow | Reject]:
    """The rows of all sources."""
    for source in sources:
        root = folder / data.root
        files = root / source.files if source.files else None
        for row in media_rows(root / source.path, files, source.path):
            yield row if isinstance(row, Reject) else replace(row, times=source.times)


def _check(config: AlignRecipe, train: list[MediaSample], rejects: list[Reject]) -> None:
    shown = "; ".join(f"{r.file}, row {r.line}: {r.reason}" for r in rejects[:SHOWN])
    if rejects and config.data.bad_rows == "error":
        raise DataError(f"{len(rejects):,} rows can't be learned from. {shown}. Correct them, or set "
                        "data.bad_rows=drop: they are then left out, counted and listed")
    if rejects:
        warn(f"{len(rejects):,} rows are left out: {shown}")
    if len(train) < config.loop.batch_size:
        raise DataError(f"{len(train)} rows are left to learn, fewer than loop.batch_size={config.loop.batch_size}: "
                        "give more, or lower it")


def new_senses(config: AlignRecipe, folder: Path, source: OpenCheckpoint) -> Senses:
    """Those that the recipe names, or new ones with first values; encoders that were trained before are read."""
    if config.senses is not None:
        senses = read_senses(path_of(config.senses, folder))
    else:
        eye, eyes = pretrained(config.eye, config.eye_weights, folder)
        ear, ears = pretrained(config.ear, config.ear_weights, folder)
        torch.manual_seed(config.seed)
        cross = None if config.cross is None else CrossConfig(
            shape=Shape(dim=source.config.dim, n_layers=1, n_heads=config.cross.n_heads,
                        hidden_dim=4 * source.config.dim),
            layers=tuple(range(0, source.config.n_layers, config.cross.every)))
        senses = Senses(SensesConfig(eye=eye, ear=ear, cross=cross, base=config.base, licence=config.licence))
        first_values(senses)
        for part, encoder in ((senses.eye, eyes), (senses.ear, ears)):
            if part is not None and encoder is not None:
                part.encoder = encoder
    for kind, own in (("eye", senses.config.eye), ("ear", senses.config.ear)):
        if own is not None and own.project.out != source.config.dim:
            raise ConfigError(f"{kind}.project.out={own.project.out}, but {config.base} has a width of "
                              f"{source.config.dim}: set it to that")
    return senses


def pretrained(part: Any, weights: str | None, folder: Path) -> tuple[Any, Any]:
    """The part with the shape of the encoder that is read, and that encoder."""
    if weights is None:
        return part, None
    where = Path(path_of(weights, folder))
    if part is None:
        raise ConfigError(f"{where} is an encoder for an eye or ear that isn't there: give [eye] or [ear], too")
    name = "eye" if isinstance(part, EyeConfig) else "ear"
    for file, read in ((SPACE, read_space), (SENSES, read_senses)):
        if (where / file).is_file():
            return _own_encoder(part, name, read(where), where)
    files = sorted(where.glob("*.safetensors"))
    if not files or not (where / "config.json").is_file():
        raise CheckpointError(f"{where} holds no encoder: expected config.json and *.safetensors")
    facts = read_json(where / "config.json")
    tensors = {name: entry.read() for file in files for name, entry in read_safetensors(file).items()}
    if isinstance(part, EyeConfig):
        eye = vision_from(facts, tensors, str(where)).float()
        pixels = part.pixels.model_copy(update={"size": eye.config.image_size})
        return part.model_copy(update={"vision": eye.config, "pixels": pixels}), eye
    ear = audio_from(facts, tensors, str(where)).float()
    return part.model_copy(update={"audio": ear.config}), ear


def _own_encoder(part: Any, name: str, read: Space | Senses, where: Path) -> tuple[Any, Any]:
    """The encoder of senses, or of a space, that this program trained."""
    own = getattr(read.senses if isinstance(read, Space) else read, name)
    if own is None:
        raise CheckpointError(f"{where} has no {name}: name a folder that has one, or leave {name}_weights out")
    kept = ("pixels", "vision") if name == "eye" else ("audio", "fills")
    return part.model_copy(update={key: getattr(own.config, key) for key in kept}), own.encoder


def first_values(senses: Senses) -> None:
    """Matrices and places at 0.02, as ViT's; norms at one."""
    for name, parameter in senses.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif parameter.dim() > 1 or name.endswith("class_token"):
            torch.nn.init.trunc_normal_(parameter, std=min(0.02, 1 / parameter[0].numel() ** 0.5))


def align(config: AlignRecipe, lesson: MediaLesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared_media` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: AlignRecipe, lesson: MediaLesson, folder: Path, resume: Resume,
           device: torch.device) -> dict[str, Any]:
    run = Path(config.out)
    layout = whole_models(config, lesson.source.config, folder, device, "training of senses", lambda: {
        "train": len(lesson.train), "held_out": len(lesson.held_out),
        "left_out": [f"{r.file}, row {r.line}: {r.reason}" for r in lesson.rejects]})
    body = build_model(lesson.source, dtype=torch.float32, device=device)
    if not isinstance(body, Llama):
        raise ConfigError(f"{config.base} is no Llama: senses are for the Llama family")
    base = fingerprint(body)
    model = Aligned(body, lesson.senses.to(device))
    freeze(model, config, _first_adapter(config, folder, body))
    state = new_state(config, model, layout, context=config.context, data=lesson.digest, base=base)
    batches = MediaLoader(lesson.train, lesson.senses, config.loop.batch_size, config.seed, layout.data_rank,
                          layout.data, config.data.jitter)
    held = MediaLoader(lesson.held_out, lesson.senses, 1, config.seed)
    resumed = taken_up(config, state, resume)

    def results(state: TrainState) -> dict[str, Any]:
        rows = int(config.loop.micro_batch)
        return dict(held_out(state.model, held.in_order(rows), device)) if lesson.held_out else {}

    length = max(sum(len(s.ids) for s in lesson.train) // len(lesson.train), 1)
    last = follow(config, state, batches, partial(align_loss, kl=config.kl), length, resumed, device,
                  lambda state: (said(cast(Aligned, state.model), lesson, held, config.shown), results(state)),
                  results)
    with state.averaged():
        made = dist.from_first(_write(config, model, lesson, base, run, last) if dist.is_main() else {})
    return reached(state, last, run=str(run), **made)


def _first_adapter(config: AlignRecipe, folder: Path, body: Llama) -> Adapter | None:
    """The one that learned with the senses that the run begins with."""
    found = None if config.senses is None else Path(path_of(config.senses, folder)) / ADAPTER
    if found is None or not found.is_dir():
        return None
    if config.learns != "adapter":
        raise ConfigError(f"{found.parent} holds an adapter of the Llama: set learns=adapter, with which it goes on")
    adapter = read_adapter(found, body.config)
    check_fits(adapter, body)
    if (adapter.config.r, adapter.config.lora_alpha) != (config.lora.r, config.lora.lora_alpha):
        raise ConfigError(f"{found} has other settings than [lora]: write its own there (r = {adapter.config.r}, "
                          f"lora_alpha = {adapter.config.lora_alpha:g})")
    return adapter


def freeze(model: Aligned, config: AlignRecipe, first: Adapter | None = None) -> None:
    """Only what the recipe says learns; `first`: the adapter that goes on."""
    learns = config.learns
    model.body.requires_grad_(learns == "all")
    for part in (model.senses.eye, model.senses.ear):
        if part is not None:
            part.encoder.requires_grad_(learns != "projector")
    if model.senses.ear is not None:
        model.senses.ear.encoder.places.requires_grad_(False)    # sines, as Whisper's
    if learns == "all":
        with torch.no_grad():
            for parameter in model.body.parameters():    # what a file lends must not be written to
                parameter.data = parameter.data.clone()
    if learns == "adapter":
        attach(model.body, first or new_adapter(model.body, config.lora.own(), config.seed))


@torch.no_grad()
def said(model: Aligned, lesson: MediaLesson, held: MediaLoader, n: int) -> list[str]:
    """What the model says to the first held-out rows, beside what it should."""
    texts = []
    for number in range(min(n, len(lesson.held_out))):
        sample = lesson.held_out[number]
        at = int((sample.weights > 0).argmax())
        batch = held.rows([number])
        ids = list(sample.ids[:at])
        found: list[int] = []
        while len(found) < 24 and (not found or found[-1] not in ends(lesson.tokenizer)):
            part = replace(batch, ids=torch.tensor([ids + found]), text=None)
            found.append(int(model.body.logits(model.hidden(part.to(next(model.parameters()).device)))[0, -1].argmax()))
        should = lesson.tokenizer.decode(sample.ids[at:].tolist(), skip_special=True)
        texts.append(f"{', '.join(file.name for file in sample.media)}\nsays: "
                     f"{lesson.tokenizer.decode(found, skip_special=True)}\nshould: {should}")
    return texts


def _write(config: AlignRecipe, model: Aligned, lesson: MediaLesson, base: str, run: Path,
           last: dict[str, Any]) -> dict[str, str]:
    measured = {key: last[key] for key in ("held_out", "answers_right") if key in last}
    model.senses.config = model.senses.config.model_copy(update={"fingerprint": base, "measured": measured,
                                                                 "base": config.base})
    write_senses(run / "senses", model.senses)
    made = {"senses": str(run / "senses")}
    if config.learns == "adapter":
        write_adapter(run / "senses" / ADAPTER, taken(model.body, config.lora.own(), base), base_name=config.base,
                      overwrite=True)
        made["adapter"] = str(run / "senses" / ADAPTER)
    if config.learns == "all":
        export(model.body, lesson.tokenizer, run / "model", {}, config.licence)
        made["model"] = str(run / "model")
    return made
