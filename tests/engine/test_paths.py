"""Which way attention goes on a CPU, and that the ways agree."""

import pytest
import torch
from engine.small import TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine import paths
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.paged_native import NativeViews
from ayllu.engine.paths import uses_native
from ayllu.errors import ConfigError
from ayllu.native import build
from ayllu.native.build import NativeError, missing_vectors

CPU = torch.device("cpu")


@pytest.mark.skipif(bool(missing_vectors()), reason="no C++ compiler")
@pytest.mark.parametrize("more", [{}, {"kv_dtype": "int8"}, {"n_guesses": 4}], ids=str)
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_both_ways_choose_the_same(name, more):
    """float32, so that no choice hangs on a rounding."""
    settings = [TIGHT.model_copy(update={"attention": way, **more}) for way in ("native", "torch")]
    engines = [Engine(model_of(name), s) for s in settings]
    assert [isinstance(engine.paths.views, NativeViews) for engine in engines] == [True, False]
    found, want = (ids_of(run(engine, requests_of(12))) for engine in engines)
    assert found == want


@pytest.fixture
def told(monkeypatch):
    """A CPU with AVX512 and a compiler on Linux; what is said."""
    lines = []
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(build, "compiler", lambda: "g++")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(paths, "load", lambda: None)
    monkeypatch.setattr(paths, "say", lines.append)
    return lines


def test_it_is_taken_where_it_gains(told, monkeypatch):
    for dtype in (torch.float32, torch.bfloat16):
        assert uses_native("auto", CPU, dtype)
        assert not uses_native("torch", CPU, dtype)
    assert not uses_native("auto", torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not uses_native("auto", CPU, torch.float32)
    assert uses_native("native", CPU, torch.float32)     # who asks for it gets it
    assert not told


@pytest.mark.parametrize(("missing", "reason"), [
    ("compiler", "sudo apt install"), ("dtype", "float16"), ("source", "broken"), ("linux", "for Linux")])
def test_what_is_missing_is_said(told, monkeypatch, missing, reason):
    def fail():
        raise NativeError("broken")

    dtype = torch.float16 if missing == "dtype" else torch.bfloat16
    if missing == "compiler":
        monkeypatch.setattr(build, "compiler", lambda: None)
    elif missing == "source":
        monkeypatch.setattr(paths, "load", fail)
    elif missing == "linux":
        monkeypatch.setattr(build.sys, "platform", "darwin")
    assert not uses_native("auto", CPU, dtype)
    assert reason in told[0]
    with pytest.raises(ConfigError, match=reason):
        uses_native("native", CPU, dtype)


def test_it_is_for_the_cpu(told):
    with pytest.raises(ConfigError, match="for the CPU"):
        uses_native("native", torch.device("cuda"), torch.bfloat16)
    with pytest.raises(ValueError, match="attention"):
        EngineSettings(attention="flash")
