"""Memory on pages of 2 MiB, for what every step reads from end to end: weights, keys and values.

With pages of 4 KiB the CPU looks up many more addresses than its tables of them hold, while products of few rows wait
for memory anyway. Linux gives such pages to whoever asks (madvise), if it has them; elsewhere the memory is as usual.
"""

import contextlib
import mmap
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

PAGE, LINE = 2 * 2**20, 64
PIECE = 16 * PAGE                                        # that what is smaller is cut from


def large_zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Like torch.zeros on the CPU. Takes up to a page more."""
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    if n_bytes < PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(*shape, dtype=dtype)
    memory = mmap.mmap(-1, n_bytes + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):                   # a kernel without them: the memory is as good as any
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # which keeps it for as long as there are tensors over it
    begin = -whole.data_ptr() % PAGE
    return whole[begin:begin + n_bytes].view(dtype).view(*shape)


class Ground:
    """Cuts room from pieces of such memory, one behind the other. A piece is free once nothing lies in it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._piece, self._used = torch.empty(0, dtype=torch.uint8), 0

    def room(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """For a tensor, which holds anything until it is filled."""
        n_bytes = torch.Size(shape).numel() * dtype.itemsize
        if n_bytes > PIECE // 2:
            return large_zeros(shape, dtype)
        with self._lock:
            if self._used + n_bytes > len(self._piece):
                self._piece, self._used = large_zeros([PIECE], torch.uint8), 0
            begin, self._used = self._used, self._used + n_bytes + -n_bytes % LINE
            return self._piece[begin:begin + n_bytes].view(dtype).view(*shape)


GROUND = Ground()                                        # of this process
