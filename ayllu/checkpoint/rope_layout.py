"""The order of the rows of wq and wk: Meta, llama2.c and GGUF interleave the pairs that RoPE turns, we split them.

Within each head, Meta's rows go a0 b0 a1 b1 ..., ours (Hugging Face's) a0 a1 ... b0 b1 ...; (a_i, b_i) is the pair i.
"""

from torch import Tensor


def to_half_split(weight: Tensor, n_heads: int) -> Tensor:
    """(heads * E, ...) from interleaved to half-split rows; works for weights and biases."""
    heads = weight.unflatten(0, (n_heads, -1, 2))        # (heads, E/2, 2, ...)
    return heads.transpose(1, 2).flatten(0, 2)


def to_interleaved(weight: Tensor, n_heads: int) -> Tensor:
    """(heads * E, ...) from half-split to interleaved rows."""
    heads = weight.unflatten(0, (n_heads, 2, -1))        # (heads, 2, E/2, ...)
    return heads.transpose(1, 2).flatten(0, 2)


def turned_heads(name: str, n_heads: int, n_kv_heads: int) -> int | None:
    """How many heads a tensor's rows form where RoPE turns them: those of wq and wk, weights and biases."""
    if ".attention.wq." in name:
        return n_heads
    return n_kv_heads if ".attention.wk." in name else None
