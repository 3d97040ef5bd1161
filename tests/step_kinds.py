"""The step's library for each kind of CPU that this one can run, by which its tests are run."""

from pathlib import Path

import pytest
import torch

from ayllu.native import build, step

SOFT_TILES = Path(__file__).parent / "native" / "soft_tiles.h"
LEVELS = ["DEFAULT", "AVX2", "AVX512"]
KINDS = {"own": None, "plain": build.PLAIN_FLAGS, "avx2": build.AVX2_FLAGS, "avx512": build.VECTOR_FLAGS,
         "tiles in software": (*build.VECTOR_FLAGS, "-include", str(SOFT_TILES))}
NEEDS = {"avx2": "AVX2", "avx512": "AVX512", "tiles in software": "AVX512"}


@pytest.fixture(params=KINDS)
def step_kind(request, monkeypatch):
    """Steps are computed by this library."""
    level = torch.backends.cpu.get_cpu_capability()
    if LEVELS.index(NEEDS.get(request.param, "DEFAULT")) > (LEVELS.index(level) if level in LEVELS else 0):
        pytest.skip(f"this CPU has no {NEEDS[request.param]}")
    flags = KINDS[request.param]
    if flags is not None:
        monkeypatch.setattr(step, "load", lambda: build._load("step", flags, ()))
    if "tiles" in request.param:
        monkeypatch.setattr(step, "missing", lambda: None)
    return request.param
