"""Where a worker computes: a GPU where there is one, else the CPU; and the memory that it took. Imports no ayllu."""

import torch
from lines import peak_bytes

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def wait() -> None:
    """Until all is done that the GPU was told to do."""
    if GPU:
        torch.cuda.synchronize()


def loaded() -> dict[str, str]:
    """What the worker runs on. From here on the peak is counted: what loading took is not."""
    if GPU:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return {"torch": torch.__version__, "device": torch.cuda.get_device_name() if GPU else "cpu"}


def peak() -> dict[str, int]:
    """The most bytes of tensors on the GPU since the worker was loaded, or the process's largest resident size."""
    return {"peak_bytes": torch.cuda.max_memory_allocated() if GPU else peak_bytes()["peak_bytes"]}
