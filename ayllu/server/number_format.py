"""In which number format a model is served where nobody says: its file's own, except for weights of 8 bits.

These have to become something to multiply with. float32 holds each of them exactly; bfloat16 rounds it by 2^-9 at most,
which is less than what 8 bits had rounded before, and is multiplied faster where the engine's kernels for it work or
the GPU has such units. `benchmarks/bits_per_byte.py --dtype` measures what that costs. `LLM.load` and all that trains
or evaluates keep to float32.
"""

import torch

from ayllu.checkpoint.load import open_checkpoint
from ayllu.log import say
from ayllu.native import build

EIGHT_BITS = "Q8_0"


def served_dtype(model: str, device: torch.device) -> str | None:
    """For weights in 8 bits, where bfloat16 is fast: that, and it is said; None leaves the choice to the file."""
    stored = {entry.stored_as for entry in open_checkpoint(model).entries.values()}
    if EIGHT_BITS not in stored or not multiplies_bfloat16(device):
        return None
    say(f"{model}: weights are {EIGHT_BITS} in the file and bfloat16 in memory, which is faster here (--dtype float32 "
        "keeps each exactly)")
    return "bfloat16"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has units for it, and on a CPU the compiler that the engine's kernels for them need."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and build.multiplies_bfloat16()
