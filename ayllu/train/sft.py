"""`ayllu sft`: a pretrained model, taught by conversations. The loop, its guarantees and reports are pretraining's."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from ayllu import dist
from ayllu.adapters.lora import attach, new_adapter, without
from ayllu.model.build import CausalModel
from ayllu.model.llama import Llama
from ayllu.model.parallel import ALONE, Layout, gather
from ayllu.train import course, sft_export
from ayllu.train.base import base_model, shared_base
from ayllu.train.compiled import packed_by, wants_compiler, wants_native
from ayllu.train.course import begun, follow, reached, taken_up, whole_models
from ayllu.train.distill import Teacher
from ayllu.train.head_loss import Kernels
from ayllu.train.lesson import Lesson, teacher_of, told
from ayllu.train.loop import LossFunction
from ayllu.train.run_folder import Resume
from ayllu.train.sample import sample_ids
from ayllu.train.sft_config import SftConfig, Tuning
from ayllu.train.sft_export import Taught
from ayllu.train.sft_loss import Anchor, BaseOf, Noise, answer_loss, sft_loss
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss


def sft(config: SftConfig, lesson: Lesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: SftConfig, lesson: Lesson, folder: Path, resume: Resume, device: torch.device) -> dict[str, Any]:
    run = Path(config.out)
    layout = whole_models(config, lesson.source.config, folder, device,
                          f"fine-tuning with {' and '.join(config.beside)}", partial(told, config, lesson),
                          may_share=not config.beside)
    model, base = (shared_base(config, lesson.source, layout, device) if layout.is_sharded else
                   base_model(config, lesson.source, device))
    batches = lesson.loader(config, layout.data_rank, layout.data)
    data = f"{lesson.gathered.train.digest}; packing {config.packing.kind}"
    state = new_state(config, model, layout, {"data": data, "base": base})
    teacher = teacher_of(config.distill, config.loop.precision, lesson.tokenizer, folder, device)
    loss = training_loss(config, device, model, teacher)
    resumed = taken_up(config, state, resume)
    held = lesson.held_out(config)
    autocast = None if config.loop.precision == "float32" else torch.bfloat16

    def results(state: TrainState, most: int | None) -> dict[str, float]:
        if held is None:
            return {}
        rows = held.in_order(int(config.loop.micro_batch), most)
        return {"held_out": answer_loss(state.model, rows, device, autocast, layout)}

    def look(state: TrainState) -> tuple[list[str], dict[str, float]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=layout.is_sharded and autocast is not None):
            said = answers(state.model, lesson, config.samples, layout)      # FSDP2 gathers bfloat16
        return said, results(state, config.eval_tokens)

    last = follow(config, state, batches, loss, config.context, resumed, device, look,
                  lambda state: results(state, None))
    with state.averaged():
        taught = gather(model) if layout.is_sharded else model
        files = dist.from_first(sft_export.write(config, cast(Llama, taught), base, lesson, run) if dist.is_main()
                                else {})
    return reached(state, last, run=str(run), **files)


def new_state(config: Tuning, model: Llama, layout: Layout = ALONE, facts: dict[str, Any] | None = None) -> TrainState:
    """The state before the first step; an adapter is put on the model here."""
    if config.lora is not None:
        attach(model, new_adapter(model, config.lora.own(), config.seed))
    plus = config.lora.plus if config.lora else 1.0
    return course.new_state(config, model, layout, plus, context=config.context, **(facts or {}))


def training_loss(config: SftConfig, device: torch.device, model: CausalModel,
                  teacher: CausalModel | None = None) -> LossFunction:
    """The loss that the recipe asks for; `model` is the base as it is before the first step."""
    compiled = wants_compiler(config, device)
    native = compiled and wants_native(config, device)
    extras: dict[str, Any] = config.loss.model_dump(exclude_defaults=True)
    if compiled:
        extras["kernels"] = Kernels.compiled(native)
    if config.neftune:
        extras["noise"] = Noise(config.neftune)
    if config.anchor:
        extras["anchor"] = Anchor(config.anchor, base_of(model, config.lora is not None))
    if config.distill and teacher is not None:
        extras["teacher"] = Teacher(teacher, config.distill)
    by = packed_by(config.packing.attention, config, device, native and dist.world_size() == 1)
    return TraineeLoss(partial(sft_loss, by=by, **extras), config.loop.precision, compiled,
                       config.loop.activation_checkpointing, native,
                       trims=by == "apart" and dist.world_size() == 1)


def base_of(model: CausalModel, has_adapter: bool) -> BaseOf:
    """Gives the base of a model in training: the model without its adapter, or a copy of it as it is now."""
    return _unadapted if has_adapter else _frozen(model)


def _frozen(model: CausalModel) -> BaseOf:
    kept = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def copied(_: CausalModel) -> Iterator[CausalModel]:
        yield kept

    return copied


@contextmanager
def _unadapted(model: CausalModel) -> Iterator[CausalModel]:
    with without(model):
        yield model


def answers(model: CausalModel, lesson: Taught, prompts: tuple[str, ...], layout: Layout) -> list[str]:
    """Each message with what the model answers now."""
    if lesson.template is None:
        begun = [lesson.tokenizer.encode(prompt, bos=True) for prompt in prompts]
    else:
        begun = [lesson.template.render([{"role": "user", "content": prompt}], lesson.tokenizer,
                                        add_generation_prompt=True).ids for prompt in prompts]
    written = sample_ids(model, begun, lesson.stops(), layout=layout)
    return [f"{prompt}\n{lesson.tokenizer.decode(ids, skip_special=True).strip()}"
            for prompt, ids in zip(prompts, written, strict=True)]
