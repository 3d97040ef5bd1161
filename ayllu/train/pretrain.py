"""`ayllu pretrain`: from text files to a trained model, by a recipe."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from ayllu import dist
from ayllu.checkpoint.resolve import BUNDLED, BUNDLED_MODELS, bundled
from ayllu.config import Settings, merge
from ayllu.data.batches import Feed, PackingConfig, repeats, tell
from ayllu.data.corpus import Corpus, vocabulary_texts
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Mixture
from ayllu.data.pack_loader import PackedLoader
from ayllu.data.shards import Shards, prepare
from ayllu.errors import CheckpointError, ConfigError
from ayllu.files import cache_folder, write_bytes, write_json
from ayllu.log import say
from ayllu.model.build import CausalModel, ModelSettings, build_model
from ayllu.model.init import initialise
from ayllu.model.parallel import ALONE, Layout, build_sharded, first_values, gather, place
from ayllu.model.parallel import fill as put
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece
from ayllu.train import course
from ayllu.train.best import Best
from ayllu.train.compiled import may_compile, packed_by, wants_compiler, wants_native
from ayllu.train.course import begun, follow, ranks_of, reached, taken_up
from ayllu.train.distill import DistillConfig, Teacher
from ayllu.train.documents import held_out_documents, spelled_bytes
from ayllu.train.export import export
from ayllu.train.head_loss import Kernels
from ayllu.train.lesson import teacher_of, with_shape
from ayllu.train.loop import LossFunction
from ayllu.train.losses import bits_per_byte, next_token_loss
from ayllu.train.objective import masked_loss
from ayllu.train.recipe import Recipe, value_of
from ayllu.train.run_folder import Resume, describe
from ayllu.train.sample import sample_texts
from ayllu.train.schedule import Schedule, factor
from ayllu.train.sft_loss import sft_loss
from ayllu.train.size import fill, without
from ayllu.train.state import TrainState, load
from ayllu.train.trainee import TraineeLoss


class TokenizerConfig(Settings):
    """A tokenizer trained from the recipe's own sources before the model."""

    vocab_size: int = Field(gt=0)
    coverage: float = Field(default=0.9995, gt=0, le=1)  # the share of characters that get a piece of their own


class PretrainConfig(Recipe):
    """A whole recipe; paths are relative to the recipe's folder, `out` to the working directory."""

    size: str | int | float | None = None                # 15m: one dial for what a recipe leaves open (train/size.py)
    sized: dict[str, str] = Field(default_factory=dict)  # the keys that the dial set, and by which rule
    tokenizer: TokenizerConfig | str                     # a table to train one, or the path of one
    model: ModelSettings
    data: Corpus
    packing: PackingConfig = PackingConfig()
    masks: Mixture = Mixture()                           # objectives; others than causal need packing
    context: int = Field(default=512, gt=1)              # tokens per training window
    distill: DistillConfig | None = None                 # distill.teacher=BIGGER and so on; None: no teacher
    init_from: str | None = None                         # a checkpoint whose weights are the start
    start_from: str | None = None                        # another run's checkpoint that this run goes on from
    samples: tuple[str, ...] = ("Once upon a time", "从前")
    eval_tokens: int = Field(default=20_000, gt=0)       # per language on the way; all of them at the end
    eval_over: Literal["auto", "text", "documents"] = "auto"   # auto: documents, each by itself, where they are packed

    @model_validator(mode="after")
    def _masks_are_packed(self) -> "PretrainConfig":
        if self.packing.kind == "none" and self.masks.parts != Mixture().parts:
            raise ValueError("masks hide parts of whole documents, and plain windows have none: set "
                             "packing.kind=best_fit")
        if self.distill is not None and (self.packing.kind == "none" or self.masks.parts != Mixture().parts):
            raise ValueError("a teacher says what comes next in whole documents: set packing.kind=best_fit, and leave "
                             "masks out")
        return self

    @property
    def feed(self) -> Feed:
        """What decides the batches."""
        return Feed(self.data, self.packing, self.masks, self.context, self.loop.batch_size, self.seed)

    @model_validator(mode="before")
    @classmethod
    def _dial(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("size") is None:
            return values
        return fill(values, cls.model_fields["context"].default)

    @classmethod
    def over(cls, base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
        """A size on top replaces what the dial would set below it; other keys replace one by one."""
        return merge(without(base, top), top)


def pretrain(config: PretrainConfig, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run a recipe to its end and return what was reached; Ctrl-C saves and raises Interrupted.

    `resume="auto"` goes on where there is a run and begins where there is none; a damaged checkpoint or damaged token
    shards are told and got over, where True raises.
    """
    with begun(config, resume) as device:
        return _train(config, recipe_folder, resume, device)


def _train(config: PretrainConfig, recipe_folder: Path, resume: Resume, device: torch.device) -> dict[str, Any]:
    run, layout = Path(config.out), ranks_of(config, config.model, device)
    if config.distill is not None and layout.is_sharded:
        raise ConfigError("a teacher lies whole on each rank, and so must the student: set parallel.mode=data and "
                          "parallel.tensor=1")
    recipe_folder = Path(config.folder or recipe_folder).resolve()
    for key, rule in config.sized.items():
        say(f"size={config.size}: {key} = {value_of(config, key)}  ({rule})")
    with dist.main_first():                              # the others find what the first has made
        if dist.is_main():
            describe(run, config, recipe_folder, device)
        tokenizer_path = find_tokenizer(config, recipe_folder, run)
        shards = prepare(config.data, recipe_folder, tokenizer_path, cache_folder() / "shards", mend=resume == "auto")
        if dist.is_main():
            shutil.copy(shards.folder / "manifest.json", run / "data.json")
    tokenizer = Tokenizer.load(tokenizer_path)
    state = new_state(config, shards, recipe_folder, device, layout)
    teacher = teacher_of(config.distill, config.loop.precision, tokenizer, recipe_folder, device)
    batches = config.feed.batches(shards, Marks.of(tokenizer), layout.data_rank, layout.data)
    state.follower = batches if isinstance(batches, PackedLoader) else None
    resumed = taken_up(config, state, resume)
    if config.start_from and not resumed:
        load(state, Path(config.start_from))
        state.best = Best()                              # a folder of the other run
        say(f"going on from {config.start_from} at step {state.step:,} of {config.loop.steps:,}")
    mixture = repeats(shards, config.data, batches.order, config.loop.steps * config.loop.batch_size)
    if dist.is_main():
        write_json(run / "mixture.json", [asdict(source) for source in mixture])
        tell(mixture)
    is_low = layout.is_sharded and config.loop.precision != "float32"     # FSDP2 gathers bfloat16

    def look(state: TrainState) -> tuple[list[str], dict[str, Any]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_low):
            texts = sample_texts(state.model, tokenizer, config.samples, layout=layout)
        return texts, held_out(state, shards, tokenizer, config, device, config.eval_tokens)

    last = follow(config, state, batches, training_loss(config, device, teacher), config.context, resumed, device, look,
                  lambda state: held_out(state, shards, tokenizer, config, device, None))
    with state.averaged():
        whole = gather(state.model) if layout.is_sharded else state.model if dist.is_main() else None
        if whole is not None:
            export(whole, tokenizer, run / "model", shards.manifest, config.licence)
    say(f"trained: {run / 'model'} (try: ayllu generate --model {run / 'model'} 'Once upon a time')")
    return reached(state, last, run=str(run), model=str(run / "model"))


def cooldown(config: PretrainConfig, steps: int, checkpoint: Path | None = None) -> PretrainConfig:
    """The recipe of a new run that takes a checkpoint (by default the newest) and lowers its rate over `steps`.

    The rate goes from where the schedule had it to `floor` times the peak, by 1 - sqrt; the run that the checkpoint
    belongs to is left as it is and may go on.
    """
    if config.optim.kind == "schedule_free":
        raise ConfigError("schedule_free needs no cooldown: its averaged weights are ready at every checkpoint")
    pointer = Path(config.out) / "checkpoints" / "latest"
    if checkpoint is None and not pointer.exists():
        raise ConfigError(f"{config.out} has no checkpoint yet: train first, or name one with --checkpoint")
    folder = checkpoint or pointer.parent / pointer.read_text(encoding="utf-8").strip()
    number = folder.name.removeprefix("step-")
    if not number.isdecimal() or not folder.is_dir():
        raise ConfigError(f"{folder} is no checkpoint: give a folder such as RUN/checkpoints/step-00000500")
    at, before = int(number), config.optim.schedule
    now = factor(before, at, config.loop.steps)
    if now <= 0:
        raise ConfigError(f"the rate has come down to 0 at step {at}: name an earlier checkpoint")
    schedule = Schedule(kind="constant", warmup_steps=0, floor=min(before.floor / now, 1.0), cooldown_at=at,
                        cooldown_steps=steps)
    trained = folder.parents[1] / "tokenizer.model"      # of the run, where it trained one
    return config.model_copy(update={
        "out": f"{config.out}-cooldown-{at}", "start_from": str(folder.resolve()),
        "tokenizer": str(trained.resolve()) if isinstance(config.tokenizer, TokenizerConfig) else config.tokenizer,
        "loop": config.loop.model_copy(update={"steps": at + steps}),
        "optim": config.optim.model_copy(update={"lr": config.optim.lr * now, "schedule": schedule})})


def new_state(config: PretrainConfig, shards: Shards, recipe_folder: Path, device: torch.device,
              layout: Layout = ALONE) -> TrainState:
    """A model with its first values, and its optimiser."""
    if config.model.vocab_size != shards.manifest["vocab_size"]:
        raise ConfigError(f"model.vocab_size={config.model.vocab_size}, but the tokenizer has "
                          f"{shards.manifest['vocab_size']} ids: make them equal")
    if config.context > config.model.max_context:
        raise ConfigError(f"context={config.context} is longer than model.max_context={config.model.max_context}")
    if layout.is_sharded:
        model = build_sharded(config.model, layout, device, config.loop.precision, may_compile(config, device),
                              config.loop.activation_checkpointing)
        put(model, first_values(model, config.model.n_layers, config.seed))
    else:
        with device:
            model = build_model(config.model)
        initialise(model, config.model.n_layers, config.seed)
    if config.init_from:
        _load_weights(model, recipe_folder, config.init_from)
    return course.new_state(config, model, layout, context=config.context, data=config.feed.name(shards))


def with_teacher(config: PretrainConfig, recipe_folder: Path) -> PretrainConfig:
    """The settings with the shape of the teacher that they may name; ConfigError where it doesn't fit."""
    if config.distill is None:
        return config
    folder = Path(config.folder or recipe_folder)
    return config.model_copy(update={"distill": with_shape(config.distill, folder, config.model, config.context)})


def training_loss(config: PretrainConfig, device: torch.device, teacher: CausalModel | None = None) -> LossFunction:
    """The loss that the recipe asks for; the model's blocks and the softmax compiled where there is a compiler."""
    compiled = wants_compiler(config, device)
    native = compiled and wants_native(config, device)
    extras = config.loss.model_dump(exclude_defaults=True)
    if compiled:
        extras["kernels"] = Kernels.compiled(native)
    loss: LossFunction = partial(next_token_loss, **extras)
    if config.packing.kind != "none":
        by = packed_by(config.packing.attention, config, device, native and dist.world_size() == 1)
        loss = partial(masked_loss, by=by, **extras)
        if config.distill and teacher is not None:
            loss = partial(sft_loss, by=by, teacher=Teacher(teacher, config.distill), **extras)
    return TraineeLoss(loss, config.loop.precision, compiled, config.loop.activation_checkpointing, native)


def held_out(state: TrainState, shards: Shards, tokenizer: Tokenizer, config: PretrainConfig, device: torch.device,
             limit: int | None) -> dict[str, float]:
    """Bits per byte on the held-out text of each language, on the first `limit` tokens or on all."""
    out = {}
    autocast = None if config.loop.precision == "float32" else torch.bfloat16
    over = config.eval_over if config.eval_over != "auto" else "text" if config.packing.kind == "none" else "documents"
    if over == "documents":
        return held_out_documents(state.model, shards, tokenizer, config.context, limit, device, autocast, state.layout)
    for language, (ids, n_bytes) in shards.held_out().items():
        n = min(len(ids), limit or len(ids))
        part = torch.from_numpy(ids[:n].astype(np.int64))
        spelled = n_bytes if n == len(ids) else spelled_bytes(tokenizer, ids[:n])
        out[f"bits_per_byte_{language}"] = bits_per_byte(state.model, part, spelled, config.context, device, autocast,
                                                        layout=state.layout)
    return out


def find_tokenizer(config: PretrainConfig, recipe_folder: Path, run: Path) -> Path:
    """The tokenizer that the recipe names, or one trained now from the recipe's sources into the run folder."""
    if isinstance(config.tokenizer, str):
        return tokenizer_at(config.tokenizer, recipe_folder, run)
    path = run / "tokenizer.model"
    if not path.exists():
        say(f"training a tokenizer of {config.tokenizer.vocab_size:,} pieces")
        write_bytes(path, train_sentencepiece(vocabulary_texts(config.data, recipe_folder), config.tokenizer.vocab_size,
                                              config.tokenizer.coverage, seed=config.data.seed))
    return path


def tokenizer_at(name: str, folder: Path, run: Path) -> Path:
    """The file or folder of a tokenizer; one that lies inside a GGUF file is taken out into the run folder."""
    path = folder / name
    if not path.exists() and name in BUNDLED_MODELS:
        path = bundled(name)
    if not path.exists():
        raise ConfigError(f"no tokenizer at {path}: give a file or folder, {BUNDLED}, or in a recipe a [tokenizer] "
                          "table to train one")
    return _taken_out(path, run / "tokenizer") if _keeps_it_inside(path) else path


def _keeps_it_inside(path: Path) -> bool:
    return path.suffix == ".gguf" or (path.is_dir() and not any(path.glob("tokenizer*")) and any(path.glob("*.gguf")))


def _taken_out(model: Path, folder: Path) -> Path:
    """A GGUF model's tokenizer as files of its own."""
    from ayllu.checkpoint.load import open_checkpoint
    tokenizer = open_checkpoint(model).open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{model} has no tokenizer: name the file or folder of one")
    tokenizer.save(folder)
    return folder


def _load_weights(model: torch.nn.Module, recipe_folder: Path, name: str) -> None:
    from ayllu.checkpoint.load import open_checkpoint
    from ayllu.checkpoint.transformer import is_transformer, open_transformer
    path = recipe_folder / name if (recipe_folder / name).exists() else Path(name)
    target = dict(model.named_parameters())
    found = (((key, entry.read()) for key, entry in open_transformer(path).entries.items()) if is_transformer(path)
             else open_checkpoint(path).tensors())
    with torch.no_grad():
        for key, tensor in found:
            if key not in target or target[key].shape != tensor.shape:
                raise CheckpointError(f"{path} has {key} of shape {tuple(tensor.shape)}, which the recipe's model "
                                      "has not: the shapes of both must agree")
            place(target.pop(key), tensor)
    if target:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(target)[:3])}: it is no checkpoint of this model")
