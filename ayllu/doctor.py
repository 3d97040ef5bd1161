"""What this machine is, what works on it, what fits, and how to fix the rest.

It stands on the floor of the apps: it asks the training room whether it can compile, and the account what fits.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ayllu import __version__
from ayllu.device import free_memory, pick_device, total_memory
from ayllu.errors import AylluError
from ayllu.files import cache_folder, state_folder
from ayllu.model import account
from ayllu.model.config import LlamaConfig
from ayllu.model.presets import preset
from ayllu.train.compiled import missing_compiler

Status = Literal["ok", "note", "problem"]
MODELS = ("smollm-135m", "llama3.2-1b", "llama3.2-3b", "llama2-7b", "llama3.1-8b", "llama2-13b", "llama2-70b")
RUN_CONTEXT, TRAIN_CONTEXT = 2048, 1024                  # tokens that the table of what fits assumes, one row each
HEADROOM = 0.9                                           # of free memory that a model may take
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "asimd", "sve", "bf16")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A note limits something; a problem keeps Ayllu from working."""

    name: str
    status: Status
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Fit:
    """Bytes that a published shape needs for each use, and whether the device has them free now."""

    model: str
    needs: dict[str, int]
    fits: dict[str, bool]


@dataclass(frozen=True)
class Report:
    """All checks, and what fits on the device that Ayllu would choose."""

    checks: tuple[Check, ...]
    device: str
    free_bytes: int
    fits: tuple[Fit, ...]

    @property
    def usable(self) -> bool:
        """Whether Ayllu works here."""
        return all(check.status != "problem" for check in self.checks)

    def as_table(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"usable": self.usable, **asdict(self)}


def examine() -> Report:
    """Look at everything; takes about as long as importing torch."""
    device = pick_device()
    free = min(free_memory(device), memory_limit() or sys.maxsize) if device.type == "cpu" else free_memory(device)
    checks = (*_machine(), *_torch(device), _compiler(device), *_packages(), _bundled_model(), *_folders())
    return Report(tuple(checks), str(device), free, tuple(what_fits(free)))


def what_fits(free: int) -> Iterator[Fit]:
    """For each published shape: to run it, to adapt it with LoRA, to train all of it."""
    for name in MODELS:
        needs = memory_needs(preset(name))
        yield Fit(name, needs, {use: n <= HEADROOM * free for use, n in needs.items()})


def memory_needs(config: LlamaConfig) -> dict[str, int]:
    """Bytes by use; training takes one row of TRAIN_CONTEXT tokens at a time."""
    return {"run float32": account.inference_memory(config, "float32", RUN_CONTEXT).total,
            "run bfloat16": account.inference_memory(config, "bfloat16", RUN_CONTEXT).total,
            "LoRA bfloat16": account.lora_memory(config, TRAIN_CONTEXT, 1).total,
            "full training": account.training_memory(config, TRAIN_CONTEXT, 1).total}


def _machine() -> Iterator[Check]:
    yield Check("system", "ok", f"{_system()}, {platform.machine()}")
    yield Check("python", "ok", platform.python_version())
    yield Check("ayllu", "ok", f"{__version__} in {Path(__file__).parent}")
    features = cpu_features()
    yield Check("cpu", "ok", f"{_cpu_name()}, {usable_cores()} of {os.cpu_count()} cores usable; "
                             f"{', '.join(features) or 'no vector features known'}")
    cpu, limit = torch.device("cpu"), memory_limit()
    capped = f", limited to {_gib(limit)} for this process" if limit and limit < total_memory(cpu) else ""
    yield Check("memory", "ok", f"{_gib(free_memory(cpu))} free of {_gib(total_memory(cpu))}{capped}")


def _torch(device: torch.device) -> Iterator[Check]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Check("torch", "ok", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads")
    if device.type == "cuda":
        for i in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(i)
            free, total = torch.cuda.mem_get_info(i)
            yield Check(f"gpu {i}", "ok", f"{found.name}, {_gib(free)} free of {_gib(total)}, "
                                          f"compute capability {found.major}.{found.minor}")
    elif shutil.which("nvidia-smi") and not torch.version.cuda:
        yield Check("gpu", "note", "there is an NVIDIA driver, but this torch is built for the CPU only",
                    "pip uninstall torch, then pip install 'torch>=2.11,<2.14' from its default index (with CUDA)")
    elif shutil.which("nvidia-smi"):
        yield Check("gpu", "note", f"there is an NVIDIA driver, but torch (CUDA {torch.version.cuda}) can't use it",
                    "run nvidia-smi: the driver must be as new as that CUDA; update it, then restart")
    else:
        yield Check("gpu", "ok", "Apple MPS" if device.type == "mps" else "none: everything runs on the CPU")


def _compiler(device: torch.device) -> Check:
    missing = missing_compiler(device)
    if missing:
        return Check("compiler", "note", f"training runs eager, not compiled: {missing}", _fix_in(missing))
    return Check("compiler", "ok", shutil.which("g++") or shutil.which("clang++") or "training is compiled (Triton)")


def _fix_in(message: str) -> str | None:
    found = re.search(r"sudo apt install \S+(?=\))", message)
    return found[0] if found else None


def _packages() -> Iterator[Check]:
    """Core packages must be there; each extra names what it lacks and the line that installs it."""
    try:
        required = importlib.metadata.requires("ayllu") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "note", "ayllu runs from its source and is not installed", "pip install -e .")
        return
    by_extra: dict[str, list[str]] = {}
    for line in required:
        spec, _, marker = line.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        by_extra.setdefault(named[1] if named else "", []).append(spec.strip())
    for extra, specs in by_extra.items():
        missing = [spec for spec in specs if not _installed(spec)]
        if extra == "":
            yield (Check("packages", "problem", f"missing: {', '.join(missing)}",
                         "pip install " + " ".join(f"'{m}'" for m in missing)) if missing
                   else Check("packages", "ok", f"all {len(specs)} that Ayllu needs"))
        elif missing:
            yield Check(f"extra {extra}", "note", f"missing: {', '.join(missing)}", f"pip install 'ayllu[{extra}]'")
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _installed(spec: str) -> bool:
    """Whether a package is there (its version is pip's business)."""
    name = re.split(r"[\s<>=!~\[(]", spec, maxsplit=1)[0]
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _bundled_model() -> Check:
    from ayllu.checkpoint.load import open_checkpoint
    try:
        source = open_checkpoint("ayllu-mini")
    except AylluError as error:
        return Check("bundled model", "note", f"ayllu-mini can't be used: {error}",
                     "every command takes another model with --model")
    size = sum(f.stat().st_size for f in source.path.rglob("*")) if source.path.is_dir() else source.path.stat().st_size
    return Check("bundled model", "ok", f"ayllu-mini, {account.n_parameters(source.config) / 1e6:.1f} million "
                                        f"parameters, {size / 2**20:.1f} MiB")


def _folders() -> Iterator[Check]:
    for name, folder, variable in (("cache folder", cache_folder(), "XDG_CACHE_HOME"),
                                   ("state folder", state_folder(), "XDG_STATE_HOME")):
        there = next(p for p in (folder, *folder.parents) if p.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            yield Check(name, "ok", f"{folder}, {_gib(shutil.disk_usage(there).free)} free")
        else:
            yield Check(name, "note", f"{folder} can't be written", f"set {variable} to a folder that you own")


def cpu_features(path: str = "/proc/cpuinfo") -> list[str]:
    """The vector features that matter to number crunching, as Linux names them; torch's own word elsewhere."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [torch.backends.cpu.get_cpu_capability().lower()]
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return [feature for feature in CPU_FEATURES if feature in flags]


def usable_cores(path: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores that this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path(path).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def memory_limit(path: str = "/sys/fs/cgroup/memory.max") -> int | None:
    """A container's limit in bytes, or None."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}"


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or "unknown processor"


def _gib(n: float) -> str:
    return f"{n / 2**30:.1f} GiB"
