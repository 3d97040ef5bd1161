"""The worst that a run may draw, of random ids: its largest batch, and what an evaluation on the way computes."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ayllu.data.label_loader import TextBatch, Texts
from ayllu.data.loader import Batch
from ayllu.data.pack_loader import PackedBatch
from ayllu.data.pair_loader import PairBatch
from ayllu.data.pairs import Answer, Compared
from ayllu.data.prompts import Prompt
from ayllu.model.build import CausalModel
from ayllu.model.heads import Classifier
from ayllu.model.parallel import ALONE
from ayllu.model.params import SamplingParams
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.heads import ROWS
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.heads_lesson import HeadLesson
from ayllu.train.heads_loss import logits_of
from ayllu.train.losses import bits_per_byte
from ayllu.train.method import TrainConfig, shape_of
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.prefer_eval import row_logps
from ayllu.train.prefer_loss import Tally
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.reward_model import ScoreBatch, scored
from ayllu.train.rewards import Reward, Rewards
from ayllu.train.rollouts import BUDGET, Drawn, DrawnBatch, Rollouts
from ayllu.train.sft import base_of
from ayllu.train.sft_config import SftConfig
from ayllu.train.sft_loss import answer_loss
from ayllu.train.state import TrainState

AnyBatch = Batch | PackedBatch | PairBatch | ScoreBatch | DrawnBatch | TextBatch


class Windows:
    """The largest batch that a run may draw: every window full, a packed one with a single document."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def batch(self, step: int) -> AnyBatch:
        """Random ids; the same at every step."""
        config, n = self.config, self.config.loop.batch_size
        if isinstance(config, PreferConfig):
            rows = full_rows(config, n)
            if config.method == "reward":
                return ScoreBatch(rows)
            crossed = tuple(row.answers[0] for row in rows) if config.method == "kto" else ()
            return PairBatch(rows, np.zeros((len(rows), 3)), crossed, np.zeros(len(rows)))
        if isinstance(config, GrpoConfig):
            known = np.zeros(config.max_tokens, np.float32)
            return DrawnBatch([Drawn(Answer(row.astype(np.int32), config.context - config.max_tokens), known, 1.0,
                                     known, known if config.kl else None) for row in random_ids(config, n)])
        if isinstance(config, HeadRecipe):
            return full_texts(config, n).batch(range(n))
        ids = torch.from_numpy(random_ids(config, n))
        if isinstance(config, PretrainConfig) and config.packing.kind == "none":
            return Batch(ids, ids.clone())
        shape = ids.shape
        return PackedBatch(ids, ids.clone(), torch.ones(shape), torch.zeros(shape, dtype=torch.int64),
                           torch.arange(shape[1]).repeat(shape[0], 1), torch.zeros(shape, dtype=torch.bool))


def random_ids(config: TrainConfig, n: int) -> np.ndarray:
    """(n, context)."""
    return np.random.default_rng(0).integers(0, shape_of(config).vocab_size, (n, config.context))


def full_rows(config: PreferConfig, n: int) -> list[Compared]:
    """Rows with two answers that fill the window after one id of a prompt."""
    ids = np.random.default_rng(0).integers(0, shape_of(config).vocab_size, (n, 2, config.context + 1))
    return [Compared(Answer(good, 1), Answer(bad, 1), "") for good, bad in ids.astype(np.int32)]


def full_texts(config: HeadRecipe, n: int) -> Texts:
    """Texts that fill the context, with the first label."""
    labels: dict[str, int | float | list[float] | list[int]] = {
        "single": 0, "multi": [0.0], "tokens": [0] * config.context, "regression": 0.0}
    return Texts(random_ids(config, n).tolist(), [labels[config.kind]] * n)


def counts(lesson: HeadLesson) -> dict[str, int]:
    """Rows of each side, labels, and the tokens of the longest text."""
    sides = {"train_rows": lesson.train, "held_out_rows": lesson.held_out, "test_rows": lesson.test}
    longest = max(len(ids) for side in sides.values() for ids in side.texts.ids)
    return {**{name: len(side) for name, side in sides.items()}, "labels": len(lesson.names), "longest": longest}


@dataclass(frozen=True)
class _Mute:
    """Stands for a tokenizer where nobody reads what is written."""

    def decode(self, ids: list[int], skip_special: bool = False) -> str:
        return ""


def rollouts(config: GrpoConfig, model: CausalModel) -> Rollouts:
    """The engine over the model in training: prompts that leave room for an answer alone, and answers that end with
    the room. Their worth is that of their length, whatever the recipe's rewards are."""
    prompts = [Prompt(tuple(ids), [], {}, "") for ids in random_ids(config, config.prompts_a_step)[
        :, :config.context - config.max_tokens].tolist()]
    tokenizer = cast(Tokenizer, _Mute())
    rewards = Rewards((Reward(kind="length", value=str(2 * config.max_tokens)),), tokenizer)
    config = config.model_copy(update={"tolerance": 1e9})
    return Rollouts(config, model, prompts, rewards, tokenizer, (), Tally(),
                    base_of(model, config.lora is not None) if config.kl else None)


@torch.no_grad()
def engine_step(config: GrpoConfig, model: CausalModel) -> None:
    """About what one step of the engine computes, whose own code asks tensors for their values: all the tokens it may
    take at once, and the choice of an id for each answer."""
    rows = config.loop.batch_size
    tokens = min(max(BUDGET, rows + 1), rows * config.context)
    device = model.tok_embeddings.weight.device
    hidden = model.trunk(model.embed(torch.zeros(1, tokens, dtype=torch.int64, device=device)))
    model.logits(hidden[0, :rows]).float().log_softmax(-1).sort(-1)


def look(config: TrainConfig, state: TrainState, device: torch.device, most: int | None = None) -> None:
    """What an evaluation on the way computes for one language, over random ids; of conversations, `most` batches.
    `looks` (method.py) says how often."""
    autocast = None if config.loop.precision == "float32" else torch.bfloat16
    if isinstance(config, SftConfig):
        batch = Windows(config).batch(0)
        assert isinstance(batch, PackedBatch)
        part = next(batch.split(int(config.loop.micro_batch)))
        n = -(-config.eval_tokens // part.ids.numel())
        answer_loss(state.model, [part] * (n if most is None else min(n, most)), device, autocast, ALONE)
    elif isinstance(config, PreferConfig):
        rows = full_rows(config, config.eval_rows if most is None else min(config.eval_rows, most))
        if config.method == "reward":
            scored(cast(Classifier, state.model), rows, config, device)
        else:
            row_logps(state.model, rows, [], int(config.loop.micro_batch), device, autocast)
    elif isinstance(config, HeadRecipe):
        logits_of(cast(Classifier, state.model), full_texts(config, ROWS), ROWS, device)
    elif isinstance(config, GrpoConfig):
        if isinstance(state.follower, Rollouts):         # as many answers as a step has prompts
            greedy = SamplingParams(max_tokens=config.max_tokens, temperature=0, ignore_eos=True)
            prompts = [prompt.ids for prompt in state.follower.prompts]
            state.follower.answering(prompts, [greedy] * len(prompts))
        else:
            engine_step(config, state.model)
    else:
        rng = np.random.default_rng(0)
        ids = torch.from_numpy(rng.integers(0, config.model.vocab_size, config.eval_tokens))
        bits_per_byte(state.model, ids, 1, config.context, device, autocast)
