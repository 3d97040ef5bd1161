"""The engine at 32k tokens: the ids of the dense cache, shared pages, and memory that grows with the length only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.generate import generate
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams

ROOT = Path(__file__).parents[2]
LONG = 32_768
SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "hidden_dim": 48, "vocab_size": 101,
         "tie_embeddings": True}
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
NEW_MIB = 400                                            # 32k x 32k scores in float32 would take 4096 per head


def model_of(kind="yarn", length=LONG):
    scaling = RopeScaling(kind=kind, factor=length / 1024, original_context=1024)
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SHAPE, max_context=length, rope_scaling=scaling)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2)
    return model


def prompt_of(length):
    return tuple(3 + (i * i + i // 7) % 98 for i in range(length))


def answer(engine, prompt, params=GREEDY):
    engine.submit(Request(prompt, params))
    tokens = []
    while not engine.is_idle:
        tokens += engine.step()
    return tokens


@pytest.mark.slow
def test_greedy_ids_at_32k_are_those_of_the_dense_cache():
    prompt = prompt_of(LONG - GREEDY.max_tokens)
    want = generate(make_runner(model_of()), [prompt], GREEDY)[0][0].ids
    engine = Engine(make_runner(model_of()), EngineSettings(n_pages=2100, token_budget=1024))
    tokens = answer(engine, prompt)
    assert [t.id for t in tokens] == want
    assert len(set(want)) > 1                            # a text, not one token again and again
    assert engine.scheduler.pool.n_free == 2100
    again = answer(engine, prompt)                       # the second time, all but the last page is there
    assert [t.id for t in again] == want
    assert again[0].start.cached_tokens == (len(prompt) - 1) // 16 * 16


@pytest.mark.slow
def test_deterministic_mode_far_out_gives_equal_bits():
    """At 2k: it goes 16 tokens and 64 keys at a time, so that 32k would take minutes."""
    prompt, params = prompt_of(2048), SamplingParams(temperature=0, max_tokens=6, logprobs=1, ignore_eos=True)
    found = []
    for budget, n_times in ((100, 1), (700, 2)):
        engine = Engine(make_runner(model_of()), EngineSettings(n_pages=300, token_budget=budget, deterministic=True))
        found += [[(t.id, t.logprob) for t in answer(engine, prompt, params)] for _ in range(n_times)]
    assert found[0] == found[1] == found[2]


SCRIPT = """
import resource, sys
sys.path.insert(0, "tests")
from engine.test_long import *
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
torch.set_num_threads(1)
short, long = prompt_of(200), prompt_of(LONG - 12)
if sys.argv[1] == "engine":
    engine = Engine(make_runner(model_of()), EngineSettings(n_pages=2100))
    run = lambda prompt: answer(engine, prompt)
else:
    run = lambda prompt: generate(make_runner(model_of(sys.argv[1])), [prompt], GREEDY)
run(short)
before = peak()
run(long)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read in KiB")
@pytest.mark.parametrize("way", ["engine", "yarn", "dynamic"])
def test_memory_at_32k_holds_no_square_of_the_length(way):
    """Chunks of a prompt through pages and through the dense cache, and dynamic NTK, which takes a prompt whole."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, way], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < NEW_MIB
