"""Keys and values in 8 bits: the bound of each number's error, and what it does to a model's logits and memory."""

import os
from pathlib import Path

import pytest
import torch
from engine.small import model_of, run
from engine.test_tiles import Recorded, prompt_of

from ayllu.engine.engine import EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.stores import Int8Store, make_stores
from ayllu.model.params import SamplingParams


def test_each_number_is_within_its_bound():
    """max|x| / 254 over the head and token; here in float32, with outliers, zeros and tiny numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 16, generator=generator) * torch.logspace(-12, 4, 40)[:, None, None]
    x[3], x[5, 1, 2] = 0, 1000.0
    store = Int8Store(torch.zeros(10, 4, 3, 16, dtype=torch.int8), torch.zeros(10, 4, 3), torch.float32)
    order = torch.randperm(40, generator=generator)
    store.write(order, x[order])
    error = (store.read(torch.arange(10)) - x).abs()
    bound = x.abs().amax(-1, keepdim=True) / 254
    assert (error <= bound * (1 + 1e-4)).all()
    assert (error[:3] > 0.9 * bound[:3]).any()           # the bound is not a loose one
    assert (error[3] == 0).all()


@pytest.mark.parametrize("deterministic", [False, True])
def test_logits_stay_close_in_a_third_of_the_memory(deterministic):
    """The largest difference that was found is 0.2 % of the logits' own deviation; ten times as much is allowed."""
    request = Request(prompt_of(30, 0, 101), SamplingParams(max_tokens=1))
    found, nbytes = {}, {}
    for kind in ("auto", "int8"):
        engine = Recorded(model_of("gqa"), EngineSettings(kv_dtype=kind, token_budget=9, max_rows=8,
                                                          deterministic=deterministic))
        run(engine, [request])
        found[kind], nbytes[kind] = engine.logits[0, 0][0], engine.cache.nbytes / engine.cache.n_pages
    difference = (found["auto"] - found["int8"]).abs().max()
    assert 0 < difference < 0.02 * found["auto"].std()
    assert nbytes["int8"] * 32 == nbytes["auto"] * 12    # 8 numbers of 4 bytes: 8 of 1 byte and a scale of 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system tells no resident memory")
def test_pages_are_there_from_the_start():
    """So that a server's memory stays as it began, and doesn't end when the last page is written."""
    before = resident()
    buffers, _ = make_stores((1, 2, 512, 16, 8, 128), torch.float32, torch.device("cpu"), False)
    assert resident() - before > 0.9 * buffers[0].nbytes


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
