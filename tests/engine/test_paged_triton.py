"""The Triton kernel against its plain twin: in Triton's interpreter on the CPU, and on a GPU where there is one.

    TRITON_INTERPRET=1 pytest -m triton                  # needs triton: pip install --no-deps triton

Nothing here imports triton before a test runs, so that the tests are collected where it is missing.
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from engine.plain_mix import plain_mix
from engine.small import MODELS, TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine
from ayllu.engine.reads import Reads
from ayllu.engine.stores import Store, make_stores

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "ayllu" / "engine" / "paged_triton.py"
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
interpreted = pytest.mark.triton
DEVICES = [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=on_gpu)]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")   # of numpy, about lines that nobody reads
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@dataclass
class Wide:
    """What a store gives, in float32."""

    store: Store

    @property
    def shape(self):
        return self.store.shape

    def read(self, pages):
        return self.store.read(pages).float()


@dataclass
class Case:
    """Some rows over pages, of which each computes its last tokens."""

    q: torch.Tensor                                      # (N, H, E)
    keys: Store
    values: Store
    reads: Reads
    window: int | None


def case_of(seed, device, dtype, is_int8, window, size, n_parts):
    """Rows of 1 to 300 tokens, some with nothing to compute; two tokens belong to no row."""
    rng, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    page, K, group, E = rng.choice([1, 3, 4, 16, 32]), rng.choice([1, 2]), rng.choice([1, 2, 3, 4]), rng.choice(
        [8, 16, 24, 64])
    lengths = [rng.choice([1, 2, 17, 64, 65, rng.randint(1, 300)]) for _ in range(rng.randint(2, 5))]
    width = -(-max(lengths) // page)
    n_pages = width * len(lengths) + 3
    table = torch.randperm(n_pages, generator=draw)[:width * len(lengths)].view(len(lengths), width)
    tiles, n = [], 0
    for line, length in enumerate(lengths):
        count = 0 if line == 1 else min(rng.randint(1, size), length)
        tiles.append((n, count, length - count, line))
        n += count
    _, [(keys, values)] = make_stores((1, 2, n_pages, page, K, E), dtype, torch.device(device), is_int8)
    for store in (keys, values):
        store.write(torch.arange(n_pages * page).to(device),
                    torch.randn(n_pages * page, K, E, generator=draw).to(device, dtype))
    q = torch.randn(n + 2, K * group, E, generator=draw).mul_(2).to(device, dtype)
    tensors = (torch.tensor(x, dtype=torch.int32).to(device) for x in (tiles, table.tolist()))
    return Case(q, keys, values, Reads(*tensors, size, n_parts), window)


def fault(mix, case):
    """The largest difference from the twin, which computes in float32 what is read in the pages' dtype, over what
    rounding allows: each weight and the result itself are rounded once, by half an epsilon of max|v| at most."""
    y = torch.full_like(case.q, 7.0)
    want = y.float()
    with torch.inference_mode():
        mix(case.q, y, case.keys, case.values, case.reads, case.window)
        plain_mix(case.q.float(), want, Wide(case.keys), Wide(case.values), case.reads, case.window)
    largest = case.values.read(torch.arange(case.values.shape[0], device=case.q.device)).abs().max().item()
    allowed = 2e-5 + (case.q.dtype != torch.float32) * torch.finfo(case.q.dtype).eps * largest
    worst = (y.float() - want).abs().max().item()
    return worst / allowed if worst == worst else float("inf")


def kernel(source=KERNEL):
    """The mix of this file."""
    spec = importlib.util.spec_from_file_location(f"kernel_{abs(hash(source))}", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mix_by_triton


def cases(device):
    """Every dtype, plain and int8, decoding in parts and chunks, with windows from one token to all."""
    for seed, (dtype, is_int8) in enumerate((dtype, is_int8) for dtype in DTYPES for is_int8 in (False, True)):
        for more, (size, n_parts) in enumerate([(1, 1), (1, 2), (1, 8), (5, 1), (16, 1)]):
            window = [None, 1, 7, 40, 1000][(seed + more) % 5]
            yield case_of(100 * seed + more, device, dtype, is_int8, window, size, n_parts)


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_agrees_with_its_twin(device):
    found = [fault(kernel(), case) for case in cases(device)]
    assert max(found) < 1, found


@interpreted
@pytest.mark.parametrize(("right", "wrong"), [
    ("s[None, :] <= place[:, None]", "s[None, :] < place[:, None] + 2"),                 # sees the next token
    ("s[None, :] > place[:, None] - WINDOW", "s[None, :] >= place[:, None] - WINDOW"),   # a window too wide
    ("first = tl.maximum(start - WINDOW + 1, 0) // S", "first = start // S"),            # a window too short
    ("low = (first + part * each) * S", "low = first * S"),                              # parts that overlap
    ("peak + tl.log2(total)", "peak"),                                                   # parts of equal weight
    ("kv * G + query % G", "(query % G) * K + kv"),                                      # another head's keys
    ("mask=e < tl.where(count > 0, E, 0)", "mask=e < E"),                                # writes for an empty row
])
def test_a_wrong_kernel_is_noticed(right, wrong, tmp_path):
    source = KERNEL.read_text(encoding="utf-8")
    assert right in source
    mutant = tmp_path / "mutant.py"
    mutant.write_text(source.replace(right, wrong), encoding="utf-8")
    mix = kernel(mutant)
    assert any(fault(mix, case) > 1 for case in cases("cpu"))


@interpreted
@pytest.mark.parametrize(("name", "kv_dtype"), [("gqa", "auto"), ("mistral", "int8")])
def test_an_engine_chooses_the_same_ids(name, kv_dtype):
    settings = TIGHT.model_copy(update={"kv_dtype": kv_dtype})
    want = ids_of(run(Engine(model_of(name), settings), requests_of(3)))
    fast = Engine(model_of(name), settings.model_copy(update={"attention": "triton"}))
    assert ids_of(run(fast, requests_of(3))) == want


@interpreted
def test_the_compiler_takes_it_for_real_gpus():
    """Without a GPU: machine code for sm_80 and sm_90, tensor cores in it, and shared memory below 99 KiB."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run([sys.executable, str(Path(__file__).with_name("compile_triton.py"))], capture_output=True,
                           text=True, timeout=500, env={**environment, "PYTHONPATH": path}, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    found = json.loads(child.stdout.splitlines()[-1])
    assert len(found) == 2 * 2 * 2
    for one in found:
        assert one["shared"] <= 99 * 1024, one
        assert one["bytes"] > 1000, one
        assert one["has_tensor_cores"] or one["dtype"] == "fp32", one


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_an_engine_on_a_gpu_with_graphs(name):
    """float32, so that ids are those of the CPU."""
    requests = requests_of(24)
    want = ids_of(run(Engine(model_of(name), TIGHT), requests))
    engine = Engine(model_of(name).cuda(), TIGHT.model_copy(update={"attention": "triton"}))
    assert ids_of(run(engine, requests)) == want
    assert engine.paths.graphs._replays
    plain = Engine(model_of(name).cuda(), TIGHT.model_copy(update={"attention": "torch"}))
    assert plain.paths.graphs is None
    assert ids_of(run(plain, requests)) == want
