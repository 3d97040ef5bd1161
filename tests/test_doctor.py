"""The doctor finds what is there, says what is missing, and names a cure for it."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch

from ayllu import doctor
from ayllu.cli.main import run
from ayllu.model import account
from ayllu.model.presets import preset


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def test_this_machine_is_usable(report: doctor.Report):
    assert report.usable
    names = [check.name for check in report.checks]
    assert {"system", "python", "cpu", "memory", "torch", "compiler", "packages", "bundled model"} <= set(names)
    assert torch.__version__ in next(c.found for c in report.checks if c.name == "torch")
    assert all(check.fix or check.status == "ok" for check in report.checks)


def test_command(capsys):
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["usable"]
    assert found["fits"][0]["model"] == "smollm-135m"
    assert run(["doctor"]) == 0
    assert "Ayllu can be used here." in capsys.readouterr().out


def test_what_fits_follows_the_account():
    eight_gib = {fit.model: fit for fit in doctor.what_fits(8 * 2**30)}
    small, large = eight_gib["smollm-135m"], eight_gib["llama2-70b"]
    assert all(small.fits.values())
    assert not any(large.fits.values())
    seven = eight_gib["llama2-7b"].needs
    assert seven["run bfloat16"] == account.inference_memory(preset("llama2-7b"), "bfloat16", 2048).total
    assert seven["run bfloat16"] < seven["run float32"] < seven["full training"]
    needs = seven["run bfloat16"]
    for free, expected in ((needs / 0.89, True), (needs / 0.91, False)):
        fit = next(f for f in doctor.what_fits(int(free)) if f.model == "llama2-7b")
        assert fit.fits["run bfloat16"] is expected


def test_a_missing_core_package_is_a_problem(monkeypatch, capsys):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("safetensors", "huggingface_hub"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = {check.name: check for check in doctor._packages()}
    assert checks["packages"].status == "problem"
    assert "safetensors" in checks["packages"].found
    assert str(checks["packages"].fix).startswith("pip install 'safetensors")
    assert checks["extra download"].status == "note"
    assert checks["extra download"].fix == "pip install 'ayllu[download]'"
    assert run(["doctor"]) == 1
    assert "can't be used here yet" in capsys.readouterr().out


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    check = doctor._compiler(torch.device("cpu"))
    assert check.status == "note"
    assert "eager" in check.found
    assert check.fix == "sudo apt install g++"


def test_a_driver_that_torch_can_not_use(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    for cuda, says in ((None, "CPU only"), ("13.0", "can't use it")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        gpu = next(check for check in doctor._torch(torch.device("cpu")) if check.name == "gpu")
        assert gpu.status == "note"
        assert says in gpu.found
        assert gpu.fix


def test_folders_that_can_not_be_written(monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    cache, state = doctor._folders()
    assert (cache.status, state.status) == ("note", "ok")
    assert "XDG_CACHE_HOME" in str(cache.fix)
    assert not (tmp_path / "state").exists()             # looking leaves no trace


def test_cpu_features_and_limits(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu sse avx2 avx512f amx_int8 made_up\n")
    assert doctor.cpu_features(str(cpuinfo)) == ["avx2", "avx512f", "amx_int8"]
    cpuinfo.write_text("Features : fp asimd sve\n")
    assert doctor.cpu_features(str(cpuinfo)) == ["asimd", "sve"]
    assert doctor.cpu_features(str(tmp_path / "none"))
    limit = tmp_path / "limit"
    limit.write_text("max\n")
    assert doctor.memory_limit(str(limit)) is None
    limit.write_text("1073741824\n")
    assert doctor.memory_limit(str(limit)) == 2**30
    limit.write_text("100000 100000")
    assert doctor.usable_cores(str(limit)) == 1
    assert doctor.usable_cores(str(tmp_path / "none")) >= 1
