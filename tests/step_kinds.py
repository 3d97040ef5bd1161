"""The step's library for each kind of CPU that this one can run, by which its tests are run."""

from pathlib import Path

import pytest
import torch

from ayllu.native import build, step

SOFT_TILES = Path(__file__).parent / "native" / "soft_tiles.h"
LEVELS = ["DEFAULT", "AVX2", "AVX512"]                   # as torch names what it found
FOUND = torch.backends.cpu.get_cpu_capability()
FLAGS = {"own": ("DEFAULT", None), "plain": ("DEFAULT", build.PLAIN_FLAGS), "avx2": ("AVX2", build.AVX2_FLAGS),
         "avx512": ("AVX512", build.VECTOR_FLAGS),
         "tiles in software": ("AVX512", (*build.VECTOR_FLAGS, "-include", str(SOFT_TILES)))}
KINDS = [kind for kind, (level, _) in FLAGS.items()
         if LEVELS.index(level) <= (LEVELS.index(FOUND) if FOUND in LEVELS else 0)]


@pytest.fixture(params=KINDS)
def step_kind(request, monkeypatch):
    """Steps are computed by this library."""
    flags = FLAGS[request.param][1]
    if flags is not None:
        monkeypatch.setattr(step, "load", lambda: build._load("step", flags, ()))
    if "tiles" in request.param:
        monkeypatch.setattr(step, "missing", lambda: None)
    return request.param
