"""Where the kernels can't be had, the reason is said; a source that doesn't compile says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ayllu.native import build
from ayllu.train.head_loss import EAGER, HeadLoss, Kernels


def test_a_cpu_without_amx_or_a_compiler_gets_a_reason(monkeypatch):
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert "AMX" in build.missing()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(build, "compiler", lambda: None)
    assert "g++" in build.missing()
    monkeypatch.setattr(build.sys, "platform", "darwin")
    assert "Linux" in build.missing()


def test_a_source_that_does_not_compile_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "compiler", lambda: "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(build.NativeError, match="native=false"):
        build.library.__wrapped__("head")
    assert not list(tmp_path.rglob("*.so"))


def test_float32_and_label_smoothing_never_reach_the_kernel(monkeypatch):
    """Their results are torch's, bit for bit."""
    monkeypatch.setattr("ayllu.native.head.head_loss", lambda *_: pytest.fail("the kernel was called"))
    draw = torch.Generator().manual_seed(0)
    hidden, matrix = torch.randn(9, 8, generator=draw), torch.randn(11, 8, generator=draw)
    labels, weights = torch.zeros(9, dtype=torch.long), torch.ones(9)
    for dtype, smoothing in ((torch.float32, 0.0), (torch.bfloat16, 0.1)):
        found = [HeadLoss(labels, weights, 0.0, smoothing, kernels=k)(hidden.to(dtype), matrix.to(dtype))[1]
                 for k in (Kernels(native=True), EAGER)]
        assert torch.equal(*found)


def test_large_tensors_ask_for_large_pages():
    """In a process of its own, since torch looks once: 40 MB are some hundred faults, and 10,000 on small pages."""
    program = ("import resource; from ayllu.device import large_pages; large_pages(); import torch\n"
               "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
               "torch.empty(40 << 20, dtype=torch.uint8).fill_(1)\n"
               "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text():
        assert int(done.stdout) < 5_000
