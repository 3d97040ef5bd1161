"""Samples on the way: what the model writes now."""

from collections.abc import Sequence

import torch

from ayllu.model.build import CausalModel
from ayllu.model.generate import generate
from ayllu.model.parallel import ALONE, Layout
from ayllu.model.params import SamplingParams
from ayllu.model.step import EagerRunner
from ayllu.text.tokenizer import Tokenizer


@torch.no_grad()
def sample_texts(model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_tokens: int = 60,
                 layout: Layout = ALONE) -> list[str]:
    """Continue each prompt with a fixed seed; the generators that training draws from are not touched.

    All ranks that hold a model in shares must call it; each of them gets the texts.
    """
    model.eval()
    runner = EagerRunner(model)
    runner.config = layout.local_config(model.config)    # a rank's cache holds its own heads
    out = []
    for prompt in prompts:
        ids = tokenizer.encode(prompt, bos=True)
        room = max(1, min(max_tokens, model.config.max_context - len(ids)))
        params = SamplingParams(max_tokens=room, temperature=0.8, top_p=0.95, seed=0)
        result = generate(runner, [ids], params, tokenizer.eos_ids)[0][0]
        out.append(tokenizer.decode([*ids, *result.ids], skip_special=True))
    model.train()
    return out
