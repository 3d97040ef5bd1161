"""Memory for torch's large tensors on a CPU that a training step finds again (pool.cpp)."""

from ayllu.log import say
from ayllu.native.build import NativeError, missing_vectors, plain_library


def pool_memory() -> None:
    """From here on tensors of 64 KiB or more lie in a pool, which keeps what is freed, where one can be built."""
    if missing_vectors() is None:
        try:
            plain_library("pool").ayllu_pool()
        except (NativeError, OSError) as error:
            say(f"a step asks the system for its memory again each time, and takes more: {error}")
