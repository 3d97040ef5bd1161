"""Samples on the way: what the model writes now."""

from collections.abc import Sequence

import torch

from ayllu.model.build import CausalModel
from ayllu.model.generate import generate
from ayllu.model.parallel import ALONE, Layout
from ayllu.model.params import SamplingParams
from ayllu.model.step import EagerRunner
from ayllu.text.tokenizer import Tokenizer


def sample_texts(model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int = 60,
                 layout: Layout = ALONE) -> list[str]:
    """Continue each prompt with a fixed seed; all ranks that hold a model in shares must call it, and get the texts."""
    begun = [tokenizer.encode(prompt, bos=True) for prompt in prompts]
    written = sample_ids(model, begun, tokenizer.eos_ids, max_tokens, layout)
    return [tokenizer.decode([*ids, *more], skip_special=True) for ids, more in zip(begun, written, strict=True)]


@torch.no_grad()
def sample_ids(model: CausalModel, prompts: Sequence[list[int]], ends: Sequence[int], max_tokens: int = 60,
               layout: Layout = ALONE) -> list[list[int]]:
    """What follows each prompt, up to one of `ends`; the generators that training draws from are not touched."""
    model.eval()
    runner = EagerRunner(model)
    runner.config = layout.local_config(model.config)    # a rank's cache holds its own heads
    out = []
    for ids in prompts:
        room = max(1, min(max_tokens, model.config.max_context - len(ids)))
        params = SamplingParams(max_tokens=room, temperature=0.8, top_p=0.95, seed=0)
        out.append(list(generate(runner, [ids], params, tuple(ends))[0][0].ids))
    model.train()
    return out
