"""A kernel's source to a loaded library: compiled when first used, into Ayllu's cache.

Nothing depends on a kernel: where one can't be had, `missing` says why, and what called for it takes torch's way.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from ayllu.errors import AylluError
from ayllu.files import atomic_path, cache_folder

HERE = Path(__file__).parent
# Named one by one and not -march=native, so that a cache that several machines share holds what all of them can run.
FLAGS = ("-std=c++20", "-O3", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma",
         "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")


class NativeError(AylluError):
    """A kernel's source did not compile."""


def missing() -> str | None:
    """Why there can be no kernels here, or None where they can be built."""
    if not sys.platform.startswith("linux"):
        return "the kernels are for Linux"
    if not torch.cpu._is_amx_tile_supported():           # torch has no public name for it
        return "this CPU has no AMX"
    return None if compiler() else "there is no C++ compiler (on Ubuntu: sudo apt install g++)"


def compiler() -> str | None:
    """The command of a C++ compiler."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The library of `name`.cpp; only where nothing is `missing`."""
    source = HERE / f"{name}.cpp"
    told = [torch.__version__, torch.__path__[0], str(compiler()), *FLAGS,
            *(path.read_text(encoding="utf-8") for path in (source, HERE / "numbers.h"))]
    target = cache_folder() / "native" / f"{name}-{hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:16]}.so"
    if not target.exists():
        with atomic_path(target) as temporary:
            _compile(source, temporary)
    return ctypes.CDLL(str(target))


def _compile(source: Path, target: Path) -> None:
    torch_folder = Path(torch.__path__[0])
    command = [str(compiler()), *FLAGS, str(source), "-o", str(target), f"-I{torch_folder / 'include'}",
               f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NativeError(f"{source.name} did not compile ({command[0]}): {done.stderr.strip()[:500]}; "
                          "native=false trains without the kernels")


def address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """What a kernel gets of a tensor: contiguous, or null."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
