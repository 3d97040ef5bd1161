"""`ayllu grpo`: a model that draws answers and learns from what they are worth, all in one process."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayllu import dist
from ayllu.data.prompts import GatheredPrompts, Prompt, gather_prompts
from ayllu.errors import ConfigError
from ayllu.evaluate.intervals import bootstrap, bootstrap_mean, mean
from ayllu.log import say
from ayllu.model.params import SamplingParams
from ayllu.text.tokenizer import Tokenizer
from ayllu.train import sft_export
from ayllu.train.base import base_model
from ayllu.train.course import begun, follow, reached, taken_up, whole_models
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.grpo_loss import grpo_loss
from ayllu.train.lesson import opened
from ayllu.train.prefer_loss import Tally
from ayllu.train.rewards import Answered, Rewards
from ayllu.train.rollouts import Answering, Rollouts
from ayllu.train.run_folder import Resume
from ayllu.train.sft import answers, base_of, new_state
from ayllu.train.sft_export import Taught
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss


@dataclass(frozen=True)
class PromptLesson(Taught):
    """What a model is asked, before the first weight is read."""

    gathered: GatheredPrompts

    @property
    def compared(self) -> np.ndarray:
        return np.concatenate([np.array(prompt.ids) for prompt in self.gathered.train[:8]])


def prepared(config: GrpoConfig, recipe_folder: Path) -> tuple[GrpoConfig, PromptLesson]:
    """The settings with the base's shape and the number of steps, and the data; ConfigError where they don't agree."""
    folder = Path(config.folder or recipe_folder)
    source, tokenizer, template = opened(config, folder, config.data.template)
    found = gather_prompts(config.data, folder, tokenizer, template, config.context - config.max_tokens)
    n = len(found.train)
    steps = config.loop.steps or max(round(config.epochs * n / config.prompts_a_step), 1) * config.updates
    say(f"{n:,} prompts to learn from, {len(found.held_out):,} held out: {steps:,} steps of {config.prompts_a_step} "
        f"prompts with {config.group} answers each")
    return (config.with_loop(steps=steps).model_copy(update={"model": source.config}),
            PromptLesson(source, tokenizer, template, found))


def grpo(config: GrpoConfig, lesson: PromptLesson, recipe_folder: Path, resume: Resume = False) -> dict[str, Any]:
    """Run what `prepared` gave to its end and return what was reached; Ctrl-C saves and raises Interrupted."""
    with begun(config, resume) as device:
        return _train(config, lesson, Path(config.folder or recipe_folder).resolve(), resume, device)


def _train(config: GrpoConfig, lesson: PromptLesson, folder: Path, resume: Resume,
           device: torch.device) -> dict[str, Any]:
    run, found, rewards = Path(config.out), lesson.gathered, Rewards(config.rewards, lesson.tokenizer)
    layout = whole_models(config, lesson.source.config, folder, device, "learning from rewards",
                          partial(told, config, lesson))
    if config.prompts_a_step % layout.data:
        raise ConfigError(f"{config.prompts_a_step} prompts a step can't be dealt out to {layout.data} ranks: set a "
                          "fitting loop.batch_size")
    model, base = base_model(config, lesson.source, device)
    reference = base_of(model, config.lora is not None) if config.kl else None
    state = new_state(config, model, layout, {"data": found.digest, "base": base, "group": config.group,
                                              "updates": config.updates})
    tally = Tally(layout)
    rollouts = Rollouts(config, state.model, found.train, rewards, lesson.tokenizer, lesson.stops(), tally, reference)
    state.follower = rollouts
    before = worths(config, rollouts.answering, found.held_out, rewards, lesson.tokenizer)
    loss = TraineeLoss(partial(grpo_loss, config=config, tally=tally), config.loop.precision, False,
                       config.loop.activation_checkpointing)
    resumed = taken_up(config, state, resume)

    def look(state: TrainState) -> tuple[list[str], dict[str, Any]]:
        now = worths(config, rollouts.answering, found.held_out[:config.eval_prompts], rewards, lesson.tokenizer)
        return answers(state.model, lesson, config.samples, layout), {
            "held_out_reward": float(now.mean())} if len(now) else {}

    def last_look(state: TrainState) -> dict[str, Any]:
        after = worths(config, rollouts.answering, found.held_out, rewards, lesson.tokenizer)
        return compared(before, after)

    last = follow(config, state, rollouts, loss, config.context, resumed, device, look, last_look)
    with state.averaged():
        files = dist.from_first(sft_export.write(config, model, base, lesson, run) if dist.is_main() else {})
    done = reached(state, last, run=str(run), **files)
    return {"answers" if key == "tokens" else key: value for key, value in done.items()}   # each counts once


def worths(config: GrpoConfig, answering: Answering, prompts: list[Prompt], rewards: Rewards,
           tokenizer: Tokenizer) -> np.ndarray:
    """(prompts,) the reward of the likeliest answer to each."""
    greedy = SamplingParams(max_tokens=config.max_tokens, temperature=0)
    found = answering([prompt.ids for prompt in prompts], [greedy] * len(prompts))
    answered = [Answered(prompt, tokenizer.decode(ids, skip_special=True), tuple(ids))
                for prompt, [(ids, _, _)] in zip(prompts, found, strict=True)]
    return np.array(rewards(answered) if answered else [])


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Mean rewards of held-out prompts, of the base and of what was trained, with 95 % intervals."""
    out: dict[str, float] = {"held_out_prompts": len(after)}
    for name, values in (("before", before), ("after", after), ("gain", after - before)):
        if len(values):
            found = bootstrap(mean(values), len(values)) if name == "gain" else bootstrap_mean(values)
            out |= {f"held_out_reward_{name}": found.value, f"held_out_reward_{name}_low": found.low,
                    f"held_out_reward_{name}_high": found.high}
    return out


def told(config: GrpoConfig, lesson: PromptLesson) -> dict[str, Any]:
    """What data.json says: the sources, what became of their rows, and each row that was left out."""
    found = lesson.gathered
    return {"tokens": sum(len(p.ids) for p in found.train), "held_out": sum(len(p.ids) for p in found.held_out),
            "tokenizer": lesson.tokenizer.fingerprint, "template": config.data.template,
            **found.told(*config.data.sources)}
