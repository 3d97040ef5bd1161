"""Memory for torch's large tensors on a CPU that a training step finds again (pool.cpp)."""

from ayllu.device import keep_memory
from ayllu.log import say
from ayllu.native.build import NativeError, missing_vectors, plain_library


def pool_memory() -> None:
    """From here on, tensors of 64 KiB or more lie in a pool that keeps what is freed; else malloc keeps it.

    Either way a step doesn't wait for the system to empty pages; the pool wastes less.
    """
    if missing_vectors() is None:
        try:
            plain_library("pool").ayllu_pool()
            return
        except (NativeError, OSError) as error:
            say(f"training takes its memory from malloc, and about a quarter more of it: {error}")
    keep_memory()
