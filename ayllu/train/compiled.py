"""What a run computes with: a compiler where there is one, the kernels of ayllu/native, and which attention."""

import platform
import shutil
import sys

import torch

from ayllu.errors import ConfigError
from ayllu.log import say
from ayllu.native.build import missing as native_missing
from ayllu.native.pool import pool_memory
from ayllu.train.objective import By
from ayllu.train.recipe import Recipe


def wants_compiler(config: Recipe, device: torch.device) -> bool:
    """Whether training is compiled: if asked for, or where it can be."""
    if config.compile == "off":
        return False
    missing = missing_compiler(device)
    if missing and config.compile == "on":
        raise ConfigError(f"compile=on, but {missing}")
    if missing:
        say(f"training runs eager, not compiled (about half the speed): {missing}")
    elif device.type == "cpu":
        pool_memory()
    return not missing


def wants_native(config: Recipe, device: torch.device) -> bool:
    """Whether the kernels of ayllu/native compute what they can; said, since their last bits are not torch's."""
    if not config.native or device.type != "cpu" or config.loop.precision == "float32" or native_missing():
        return False
    say("training uses C++ kernels (native=false: torch's)")
    return True


def packed_by(asked: str, config: Recipe, device: torch.device, native: bool) -> By:
    """What computes packed attention: block-sparse kernels on a GPU with a compiler, those of ayllu/native, or SDPA, on
    a CPU document by document."""
    can = device.type == "cuda" and may_compile(config, device)
    if asked == "flex" and not can:
        raise ConfigError(f"packing.attention=flex needs a GPU and a compiler; this run has {device} and "
                          f"compile={config.compile}: leave it at auto")
    if asked == "sdpa":
        return "mask"
    return "flex" if can else "within" if native else "apart" if device.type == "cpu" else "mask"


def may_compile(config: Recipe, device: torch.device) -> bool:
    """The answer of `wants_compiler`, without a word."""
    return config.compile != "off" and missing_compiler(device) is None


def missing_compiler(device: torch.device) -> str | None:
    """Why torch.compile can't work here, or None where it can."""
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler (on Ubuntu: sudo apt install g++)"
    if sys.version_info >= (3, 14):
        return f"Python {platform.python_version()} is newer than torch.compile knows"
    return None
