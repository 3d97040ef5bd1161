"""Generated ids against transformers' `generate` for every family, in batches of different lengths."""

import pytest
import torch
from parity.families import FAMILIES
from parity.pairs import pair

from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams


def theirs_generate(model, prompts, n, **settings):
    """Ids that transformers adds to left-padded prompts, without an end."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    model.generation_config.eos_token_id = None
    out = model.generate(ids, attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=0, **settings)
    return out[:, width:].tolist()


def prompts_for(config, *shares):
    generator = torch.Generator().manual_seed(1)
    lengths = [max(1, round(config.max_context * share)) for share in shares]
    return [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_greedy_ids_until_the_context_is_full(name):
    both = pair(name)
    prompts = prompts_for(both.ours.config, 0.1, 0.4, 0.25)
    n = min(100, both.ours.config.max_context - max(map(len, prompts)))
    got = generate(both.ours, prompts, SamplingParams(temperature=0, max_tokens=n))
    expected = theirs_generate(both.theirs, prompts, n)
    assert [each[0].ids for each in got] == expected
    assert len({i for ids in expected for i in ids}) > 3


@pytest.mark.parametrize("name", ["llama-3-8b", "mistral-7b-v0.1", "qwen2-7b-sliding"])
def test_beams(name):
    both = pair(name)
    prompt = prompts_for(both.ours.config, 0.3)[0]
    n = min(30, both.ours.config.max_context - len(prompt))
    got = generate(both.ours, [prompt], SamplingParams(num_beams=4, n=4, max_tokens=n))[0]
    assert [o.ids for o in got] == theirs_generate(both.theirs, [prompt], n, num_beams=4, num_return_sequences=4)
