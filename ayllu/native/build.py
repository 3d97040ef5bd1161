"""A kernel's source to a loaded library: compiled when first used, into Ayllu's cache.

Nothing depends on a kernel: where one can't be had, `missing` or `missing_vectors` says why, and what called for it
takes torch's way. Those of `library` multiply by AMX, through torch's own products, those of `tile_library` by its
instructions or, without it, by vectors; those of `vector_library` need nothing but a compiler, and gain where it may
use AVX512 or AVX2.
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
from ayllu.log import say

HERE = Path(__file__).parent
PLAIN_FLAGS = ("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi",
               "-fopenmp", "-fPIC", "-shared")
# Named one by one and not -march=native, so that a cache that several machines share holds what all of them can run.
VECTOR_FLAGS = (*PLAIN_FLAGS, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma",
                "-mprefer-vector-width=512")
AVX2_FLAGS = (*PLAIN_FLAGS, "-mavx2", "-mfma")
AMX_FLAGS = (*VECTOR_FLAGS, "-mavx512bf16")
TILE_FLAGS = (*AMX_FLAGS, "-mamx-tile", "-mamx-bf16")


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


def missing_vectors() -> str | None:
    """Why there can be no kernels of `vector_library` here, or None where they can be built."""
    if not sys.platform.startswith("linux"):
        return "the kernels are for Linux"
    return None if compiler() else "there is no C++ compiler (on Ubuntu: sudo apt install g++)"


def vector_flags() -> tuple[str, ...]:
    """How kernels of `vector_library` are compiled: for the vectors that torch found in this CPU."""
    return {"AVX512": VECTOR_FLAGS, "AVX2": AVX2_FLAGS}.get(torch.backends.cpu.get_cpu_capability(), PLAIN_FLAGS)


def missing_avx2() -> bool:
    """Whether those kernels would have to do with what every CPU has."""
    return vector_flags() == PLAIN_FLAGS


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 as fast as it reads it: by AMX, or by kernels of our own (step.py)."""
    return missing() is None or (missing_vectors() is None and not missing_avx2())


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The library of `name`.cpp; only where nothing is `missing`."""
    torch_folder = Path(torch.__path__[0])
    return _load(name, (*AMX_FLAGS, f"-I{torch_folder / 'include'}"),
                 (f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"), torch.__version__)


@functools.cache
def plain_library(name: str) -> ctypes.CDLL:
    """The library of `name`.cpp, which speaks with torch and computes nothing."""
    torch_folder = Path(torch.__path__[0])
    return _load(name, (*PLAIN_FLAGS, f"-I{torch_folder / 'include'}"), (f"-L{torch_folder / 'lib'}", "-lc10"),
                 torch.__version__)


@functools.cache
def vector_library(name: str) -> ctypes.CDLL:
    """The library of `name`.cpp, with the vectors that the CPU has."""
    return _load(name, vector_flags(), ())


@functools.cache
def tile_library(name: str) -> ctypes.CDLL:
    """The library of `name`.cpp, with AMX's tiles where the CPU has them, else with its vectors."""
    return _load(name, vector_flags() if missing() else TILE_FLAGS, ())


def _load(name: str, flags: tuple[str, ...], libraries: tuple[str, ...], version: str = "") -> ctypes.CDLL:
    source = HERE / f"{name}.cpp"
    told = [version, str(compiler()), *flags, *libraries,
            *(path.read_text(encoding="utf-8") for path in (source, *sorted(HERE.glob("*.h"))))]
    target = cache_folder() / "native" / f"{name}-{hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:16]}.so"
    if not target.exists():
        say(f"compiling {source.name}, once for this machine (some seconds)")
        with atomic_path(target) as temporary:
            _compile([str(compiler()), *flags, str(source), "-o", str(temporary), *libraries], source)
    return ctypes.CDLL(str(target))


def _compile(command: list[str], source: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NativeError(f"{source.name} did not compile ({command[0]}): {done.stderr.strip()[:500]}; "
                          "native=false trains without the kernels, attention='torch' serves without them")


def address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """What a kernel gets of a tensor: contiguous, or null."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
