"""Devices and number formats: which one to use, how much memory there is, what a name means."""

import os
import platform
import time

import torch

from ayllu.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALIASES = {"fp32": "float32", "f32": "float32", "bf16": "bfloat16", "fp16": "float16", "f16": "float16"}


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; any other name is taken as torch knows it."""
    if name != "auto":
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:1 or mps") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device {name!r} asked for, but torch sees no CUDA device: use cpu, "
                              "or run `ayllu doctor`")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_dtype(name: str) -> torch.dtype:
    """A torch dtype from its name (float32, bfloat16, float16 or the short forms)."""
    full = ALIASES.get(name, name)
    if full not in DTYPES:
        raise ConfigError(f"dtype {name!r} is unknown: use one of {', '.join(DTYPES)}")
    return DTYPES[full]


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether it is an x86 CPU without instructions for bfloat16, whose products torch forms slower than float32's."""
    return (device.type == "cpu" and platform.machine() in ("x86_64", "AMD64")
            and not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()))


def total_memory(device: torch.device) -> int:
    """Bytes of memory on the device (of the machine, for the CPU)."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken now without swapping; for the CPU what Linux calls MemAvailable."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass                                             # not Linux: fall through to the total
    return total_memory(device)


def large_pages() -> None:
    """Ask torch for pages of 2 MiB under large CPU tensors: hundreds of page faults in place of a hundred thousand.

    torch looks once, when a process makes its first tensor. What is set already stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def matrix_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = 2048) -> float:
    """Operations per second of a large matrix product, measured now (about a tenth of a second).

    It draws from a generator of its own: training's stands where a checkpoint has put it.
    """
    size = size if device.type == "cpu" else 4 * size
    own = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=own).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):                                   # the first one warms up
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
