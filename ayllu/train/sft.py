"""`ayllu sft`: a pretrained model, taught by conversations. The loop, its guarantees and reports are pretraining's."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from ayllu import dist
from ayllu.adapters.lora import fingerprint
from ayllu.checkpoint.licence import licence_by_id
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.checkpoint.save import source_from_model
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.data.chat_loader import ChatLoader, ChatPacking
from ayllu.data.chats import Chats, Gathered, as_tables, ends, gather, template_of
from ayllu.data.mask_marks import Marks
from ayllu.errors import ConfigError
from ayllu.files import write_json
from ayllu.log import say
from ayllu.model.build import CausalModel
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama
from ayllu.model.parallel import ALONE, Layout
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.average import new_average
from ayllu.train.best import Best
from ayllu.train.checkpoints import restore
from ayllu.train.compiled import packed_by, wants_compiler, wants_native
from ayllu.train.control import Control
from ayllu.train.course import begun, follow, ranks_of, reached
from ayllu.train.export import export_as
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import LoopConfig, LossFunction
from ayllu.train.optim import build_optimizer
from ayllu.train.recipe import Recipe
from ayllu.train.run_folder import Resume, describe
from ayllu.train.sample import sample_ids
from ayllu.train.sft_loss import Anchor, BaseOf, Noise, answer_loss, sft_loss
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss


class SftLoop(LoopConfig):
    """As in pretraining, with numbers for short runs; the steps may follow from `epochs`."""

    steps: int = Field(default=0, ge=0)                  # 0: as many as `epochs` says
    batch_size: int = Field(default=16, gt=0)            # rows per step over all ranks and micro-batches
    eval_every: int = Field(default=50, gt=0)
    checkpoint_every: int = Field(default=100, gt=0)


class SftConfig(Recipe):
    """A recipe of fine-tuning; paths are relative to its folder, `out` to the working directory."""

    method: Literal["sft"] = "sft"
    base: str                                            # the model that learns: a folder, a file, a hub name
    model: LlamaConfig | None = None                     # its shape; None: read from it. All that a dry run needs
    data: Chats
    packing: ChatPacking = ChatPacking()
    loop: SftLoop = SftLoop()
    context: int = Field(default=512, gt=1)              # tokens per training window: the longest sample
    epochs: float = Field(default=3.0, gt=0)             # over the windows, where loop.steps is 0
    neftune: float = Field(default=0.0, ge=0)            # alpha of noise on the embeddings (arXiv:2310.05914: 5 to 15)
    anchor: float = Field(default=0.0, ge=0)             # times KL(base || model), which keeps answers near the base's
    samples: tuple[str, ...] = ()                        # messages of a user that are answered on the way
    eval_tokens: int = Field(default=50_000, gt=0)       # places of held-out windows on the way; all at the end

    @model_validator(mode="before")
    @classmethod
    def _gentler(cls, values: Any) -> Any:
        """A trained model wants a lower rate, no decay and a short warm-up; what a recipe names stays."""
        if not isinstance(values, dict) or not isinstance(values.get("optim", {}), dict):
            return values
        return {**values, "optim": {"lr": 5e-5, "weight_decay": 0.0, "schedule": {"warmup_steps": 10},
                                    **values.get("optim", {})}}

    @model_validator(mode="after")
    def _held_out_is_there(self) -> "SftConfig":
        if self.loop.patience and not self.data.held_out and not self.data.held_out_sources:
            raise ValueError("loop.patience stops by the held-out loss, and nothing is held out: set data.held_out or "
                             "data.held_out_sources")
        return self


@dataclass(frozen=True)
class Lesson:
    """What a run learns from: the base with its tokenizer and template, and the conversations as ids."""

    source: OpenCheckpoint
    tokenizer: Tokenizer
    template: ChatTemplate | None
    gathered: Gathered

    def loader(self, config: SftConfig, rank: int = 0, world_size: int = 1) -> ChatLoader:
        """Of the training side."""
        return ChatLoader(self.gathered.train, Marks.of(self.tokenizer), config.context, config.loop.batch_size,
                          config.seed, rank, world_size, config.packing.kind)

    def held_out(self, config: SftConfig) -> ChatLoader | None:
        """Of the other side, if there is one."""
        if not len(self.gathered.held_out.starts):
            return None
        return ChatLoader(self.gathered.held_out, Marks.of(self.tokenizer), config.context, 1, kind=config.packing.kind)

    def stops(self) -> tuple[int, ...]:
        """Ids that end an answer: those that are taught, which are often not what ended a text for the base."""
        return ends(self.tokenizer) if self.template is not None else tuple(self.tokenizer.eos_ids)


def sft(config: SftConfig, lesson: Lesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: SftConfig, lesson: Lesson, folder: Path, resume: Resume, device: torch.device) -> dict[str, Any]:
    run = Path(config.out)
    if dist.is_main():
        describe(run, config, folder, device)
        write_json(run / "data.json", told(config, lesson))
    layout = ranks_of(config, lesson.source.config, device)
    if layout.is_sharded or layout.tensor > 1:
        raise ConfigError("fine-tuning is shared out with whole models only so far: set parallel.mode=data and "
                          "parallel.tensor=1")
    torch.manual_seed(config.seed + layout.data_rank)    # of dropout and noise
    model = base_model(lesson.source, device)
    batches = lesson.loader(config, layout.data_rank, layout.data)
    state = new_state(config, model, lesson, layout)
    loss = training_loss(config, device, model)
    if resumed := restore(state, run, fall_back=resume == "auto"):
        say(f"resuming {run} at step {state.step:,} of {config.loop.steps:,}")
    held = lesson.held_out(config)
    autocast = None if config.loop.precision == "float32" else torch.bfloat16

    def results(state: TrainState, most: int | None) -> dict[str, float]:
        if held is None:
            return {}
        rows = held.in_order(int(config.loop.micro_batch), most)
        return {"held_out": answer_loss(state.model, rows, device, autocast, layout)}

    last = follow(config, state, batches, loss, config.context, resumed, device,
                  lambda state: (answers(state.model, lesson, config.samples, layout),
                                 results(state, config.eval_tokens)),
                  lambda state: results(state, None))
    with state.averaged():
        if dist.is_main():
            _export(config, model, lesson, run)
    say(f"trained: {run / 'model'} (try: ayllu chat --model {run / 'model'})")
    return reached(state, last, run=str(run), model=str(run / "model"))


def prepared(config: SftConfig, recipe_folder: Path) -> tuple[SftConfig, Lesson]:
    """The settings with the base's shape and the number of steps, and the data; ConfigError where they don't agree."""
    folder = Path(config.folder or recipe_folder)
    source = open_base(config, folder)
    tokenizer = source.open_tokenizer()
    if tokenizer is None:
        raise ConfigError(f"{source.path} has no tokenizer: put tokenizer.json or tokenizer.model beside its weights")
    shape = source.config
    if config.model is not None and config.model != shape:
        raise ConfigError(f"the recipe's [model] is not the shape of {source.path}: leave it out, and it is read")
    if config.context > shape.max_context:
        raise ConfigError(f"context={config.context} is longer than the base's, {shape.max_context}: lower it")
    template = template_of(config.data.template, tokenizer, folder)
    lesson = Lesson(source, tokenizer, template, gather(config.data, folder, tokenizer, template, config.context))
    windows = len(lesson.loader(config).packing)
    steps = config.loop.steps or max(round(config.epochs * windows / config.loop.batch_size), 1)
    say(f"{len(lesson.gathered.train.starts):,} samples in {windows:,} windows: "
        f"{steps * config.loop.batch_size / windows:.2f} epochs in {steps:,} steps")
    return config.model_copy(update={"model": shape, "loop": config.loop.model_copy(update={"steps": steps})}), lesson


def open_base(config: SftConfig, folder: Path) -> OpenCheckpoint:
    """The base, by a path from the recipe's folder or by a name."""
    return open_checkpoint(folder / config.base if (folder / config.base).exists() else config.base)


def base_model(source: OpenCheckpoint, device: torch.device) -> Llama:
    """The base in float32, in memory of its own: weights that a file lends must not be written to."""
    model = build_model(source, dtype=torch.float32, device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def new_state(config: SftConfig, model: Llama, lesson: Lesson | None, layout: Layout = ALONE) -> TrainState:
    """The state before the first step; without a lesson, that of a rehearsal."""
    threads = torch.get_num_threads() if dist.world_size() == 1 else 0
    facts: dict[str, Any] = {"threads": threads, "micro_batch": config.loop.micro_batch, "context": config.context,
             "batch_size": config.loop.batch_size, "seed": config.seed}
    if lesson is not None:
        facts |= {"data": f"{lesson.gathered.train.digest}; packing {config.packing.kind}", "base": fingerprint(model)}
    return TrainState(model, build_optimizer(model, config.optim), facts=facts,
                      average=new_average(model) if config.loop.ema else None, best=Best(),
                      control=Control(config.adapt) if config.adapt.kind != "off" else None, layout=layout)


def training_loss(config: SftConfig, device: torch.device, model: CausalModel) -> LossFunction:
    """The loss that the recipe asks for; `model` is the base as it is before the first step."""
    compiled = wants_compiler(config, device)
    native = compiled and wants_native(config, device)
    extras: dict[str, Any] = config.loss.model_dump(exclude_defaults=True)
    if compiled:
        extras["kernels"] = Kernels.compiled(native)
    if config.neftune:
        extras["noise"] = Noise(config.neftune)
    if config.anchor:
        extras["anchor"] = Anchor(config.anchor, _frozen(model))
    by = packed_by(config.packing.attention, config, device, native and dist.world_size() == 1)
    return TraineeLoss(partial(sft_loss, by=by, **extras), config.loop.precision, compiled,
                       config.loop.activation_checkpointing, native)


def _frozen(model: CausalModel) -> BaseOf:
    kept = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def base_of(_: CausalModel) -> Iterator[CausalModel]:
        yield kept

    return base_of


def answers(model: CausalModel, lesson: Lesson, prompts: tuple[str, ...], layout: Layout) -> list[str]:
    """Each message with what the model answers now."""
    if lesson.template is None:
        begun = [lesson.tokenizer.encode(prompt, bos=True) for prompt in prompts]
    else:
        begun = [lesson.template.render([{"role": "user", "content": prompt}], lesson.tokenizer,
                                        add_generation_prompt=True).ids for prompt in prompts]
    written = sample_ids(model, begun, lesson.stops(), layout=layout)
    return [f"{prompt}\n{lesson.tokenizer.decode(ids, skip_special=True).strip()}"
            for prompt, ids in zip(prompts, written, strict=True)]


def told(config: SftConfig, lesson: Lesson) -> dict[str, Any]:
    """What data.json says: the sources, what became of their rows, and each row that was left out."""
    found = lesson.gathered
    return {"tokens": len(found.train.ids), "learned": found.train.learned, "held_out": len(found.held_out.ids),
            "tokenizer": lesson.tokenizer.fingerprint, "template": config.data.template,
            "sources": as_tables(found, config.data), "rows": dict(found.total),
            "left_out": [{"file": r.file, "row": r.line, "reason": r.reason} for r in found.rejects]}


def _export(config: SftConfig, model: Llama, lesson: Lesson, run: Path) -> None:
    """The model with the template that it was taught in, the ids that end its answers, and the base's licence."""
    source, tokenizer = lesson.source, lesson.tokenizer
    if lesson.template is not None:
        tokenizer.chat_template = lesson.template.source
    licence = licence_by_id(config.licence) if config.licence else source.licence
    generation = source.generation.model_copy(update={"eos_ids": lesson.stops()})
    taught = replace(source, entries=source_from_model(model).entries, generation=generation,
                     chat_template=tokenizer.chat_template, open_tokenizer=lambda: tokenizer,
                     licence=licence and licence.derived(source.path.name))
    export_as(taught, model, run / "model", json.loads((run / "data.json").read_text(encoding="utf-8")))
