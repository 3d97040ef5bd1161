"""Few sizes of steps on a CPU: what a step lacks to the next size is filled up with tokens that nobody reads.

oneDNN compiles a product for each number of rows and keeps it, some 2 MB for each size of a small model's step. Steps
of a busy server have hundreds of sizes, so without this its memory grows for hours, and each new size costs a compile.

N new tokens of all rows
"""

from dataclasses import replace

import torch.nn.functional as F

from ayllu.engine.batch import FlatBatch, Span


def size_of(n: int) -> int:
    """The size that n tokens are filled up to: every one to 8, then every 4th to 32, every 8th to 128, every 32nd."""
    step = 1 if n <= 8 else 4 if n <= 32 else 8 if n <= 128 else 32
    return -(-n // step) * step


def filled_up(batch: FlatBatch, scratch: int, page_size: int) -> FlatBatch:
    """The same with tokens of page `scratch` at the end, which belongs to no row."""
    n = len(batch.ids)
    n_more = size_of(n) - n
    if not n_more:
        return batch
    filler = tuple(Span(n + i, n + i + 1, 0, [scratch]) for i in range(n_more))
    return replace(batch, ids=F.pad(batch.ids, (0, n_more)), positions=F.pad(batch.positions, (0, n_more)),
                   slots=F.pad(batch.slots, (0, n_more), value=scratch * page_size), chunks=batch.chunks + filler,
                   shown=None if batch.shown is None else batch.shown.part(slice(n), n_more))
