"""Trained weights: 200 greedy ids through our cache are transformers' own, to the last one."""

from pathlib import Path

import pytest
import torch
from parity.pairs import assert_same
from transformers import AutoConfig, AutoModelForCausalLM

from ayllu.checkpoint.hf import hf_name
from ayllu.checkpoint.hf_config import config_to_hf
from ayllu.checkpoint.load import load_checkpoint
from ayllu.model.generate import generate
from ayllu.model.sample import SamplingParams

ROOT = Path(__file__).parents[2]
STORIES = ROOT / "../shared/data/llama2c/stories260K.bin"
MINI = ROOT / "ayllu/weights/ayllu-mini/model.gguf"
N_TOKENS = 200
GREEDY = SamplingParams(temperature=0, max_tokens=N_TOKENS, ignore_eos=True)


def in_transformers(model):
    """The same weights in transformers' class, through the config that we would write."""
    table = config_to_hf(model.config)
    table.pop("architectures")
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(table.pop("model_type"), **table),
                                              attn_implementation="eager", dtype=torch.float32).eval()
    state = {hf_name(name): parameter for name, parameter in model.named_parameters()}
    if model.config.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    theirs.load_state_dict(state)
    return theirs


def greedy_in_transformers(theirs, prompt):
    ids = torch.tensor([prompt])
    out = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=N_TOKENS,
                          eos_token_id=None, pad_token_id=0)
    return out[0, len(prompt):].tolist()


def assert_same_greedy_ids(model, prompts):
    model, theirs = model.float(), in_transformers(model)
    expected = [greedy_in_transformers(theirs, prompt) for prompt in prompts]
    assert len(set().union(*expected)) > 15              # small models go in circles, but not on one id for ever
    with torch.inference_mode():
        for prompt, answer in zip(prompts, expected, strict=True):
            ids = torch.tensor([prompt + answer])
            assert_same(model(ids), theirs(ids).logits)
    alone = [generate(model, [prompt], GREEDY)[0][0].ids for prompt in prompts]
    assert alone == expected
    assert [outputs[0].ids for outputs in generate(model, prompts, GREEDY)] == expected   # padded into one batch


def test_stories260k():
    if not STORIES.exists():
        pytest.skip("../shared/data/llama2c/stories260K.bin is not beside this checkout")
    model = load_checkpoint(STORIES).model
    assert model.config.n_kv_heads < model.config.n_heads
    first = generate(model, [[1]], GREEDY)[0][0].ids
    assert_same_greedy_ids(model, [[1], [1, *first[:9], 300], [1, *first[40:75]]])


def test_ayllu_mini():
    if not MINI.exists():
        pytest.skip("the weights of ayllu-mini are not bundled yet (ayllu/weights/ayllu-mini/model.gguf)")
    bundled = load_checkpoint("ayllu-mini")
    prompts = [bundled.tokenizer.encode(text, bos=True) for text in ("Once upon a time", "从前有一个", "The")]
    assert_same_greedy_ids(bundled.model, prompts)
