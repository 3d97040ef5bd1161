"""What benchmarks/gpu_steps.py counts, on the CPU and at a small shape; and what it says where there is no GPU."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine.small import MODELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_steps", ROOT / "benchmarks/gpu_steps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_that_a_step_reads(script):
    layer = 2 * 32 * 32 + 2 * 32 * 32 + 3 * 32 * 48      # wq, wo; wk, wv; w1, w2, w3
    model = script.random_model(MODELS["llama"], torch.bfloat16, torch.device("cpu"))
    assert script.matrix_weights(model) == 3 * layer + 101 * 32
    assert model.norm.weight.dtype == torch.bfloat16
    tied = script.random_model(MODELS["gqa"], torch.float32, torch.device("cpu"))
    assert script.matrix_weights(tied) == 3 * (layer - 2 * 16 * 32) + 101 * 32
    assert torch.get_default_dtype() == torch.float32


def test_shares_and_goals(script, monkeypatch):
    """Steps of 2 ms and prompts of 50 ms, at rates that make the shares easy."""
    asked = []

    def seconds(model, n_rows, n_prompt, n_steps, settings):
        asked.append((n_rows, n_prompt, n_steps, settings))
        return {"prompt_s": 0.05, "decode_s": 0.002}

    monkeypatch.setattr(script, "step_seconds", seconds)
    model = script.random_model(MODELS["llama"], torch.bfloat16, torch.device("cpu"))
    found = script.measure(model, rate=1e9, peak=1e9, is_quick=True)
    matrices = 3 * (4 * 32 * 32 + 3 * 32 * 48) + 101 * 32
    n_bytes = 2 * (matrices + (128 + 4 + 8) * 2 * 3 * 4 * 8)
    work = 2 * 88 * (matrices - 101 * 32) + 2 * 88 * 88 * 3 * 4 * 8
    assert found[0]["share"] == pytest.approx(n_bytes / 0.002 / 1e9)
    assert found[0]["ratio"] == pytest.approx(found[0]["share"] / 0.7)
    assert found[-1]["share"] == pytest.approx(work / 0.05 / 1e9)
    assert found[-1]["ratio"] == pytest.approx(found[-1]["share"] / 0.6)
    assert asked == [*((n, 128, 16, {"runner": "fused"}) for n in (1, 8, 32)), *[(1, 88, 4, {"runner": "fused"})] * 3]


@pytest.mark.parametrize("settings", [{}, {"runner": "eager"}])
def test_steps_are_timed(script, settings):
    """Each step once: eight read a prompt, the others choose one token for each row."""
    model = script.random_model(MODELS["gqa"], torch.float32, torch.device("cpu"))
    found = script.step_seconds(model, 8, 9, 4, settings)
    assert 0 < found["decode_s"] < 1
    assert 0 < found["prompt_s"] < 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said():
    child = subprocess.run([sys.executable, str(ROOT / "benchmarks/gpu_steps.py")], capture_output=True, text=True,
                           env={"PYTHONPATH": str(ROOT), "PATH": ""}, check=False, timeout=120)
    assert child.returncode == 2
    assert child.stderr.startswith("no GPU: ")
    assert child.stdout == ""
