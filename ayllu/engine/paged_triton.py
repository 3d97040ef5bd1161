"""Attention over pages in Triton, for CUDA: one kernel for rows with one new token and for chunks of prompts.

A program takes one tile of queries, one key/value head with all the query heads that share it, and one part of the
tile's keys, which it reads block by block with a running softmax (FlashAttention, arXiv:2205.14135). Where there are
few tiles, as in a decoding step, several programs share a tile's keys and a second kernel joins what they found (split
reduction, as in Flash-Decoding). int8 pages become the queries' dtype as they are read, exactly as stores.py does it.

It was written without a GPU: it ran in Triton's interpreter on the CPU against a plain twin, and Triton's compiler
accepts it for sm_80 and sm_90 (tests/engine/test_paged_triton.py); later it ran on an H100. The block sizes are not
tuned.

M tiles  N tokens  H query heads  K key/value heads  G = H / K  E head width  Q queries of a tile  S slots of a block
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from ayllu.engine.reads import Reads
from ayllu.engine.stores import Int8Store, PlainStore, Store

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # its products take bfloat16 for integers, so they get float32
LOG2_E = 1.4426950408889634


@triton.jit
def _read(data: tl.tensor, scales: tl.tensor, slot: tl.tensor, exists: tl.tensor, IS_INT8: tl.constexpr,
          DTYPE: tl.constexpr, E: tl.constexpr, E2: tl.constexpr) -> tl.tensor:         # (S, E2)
    e = tl.arange(0, E2)
    inside = exists[:, None] & (e < E)[None, :]
    x = tl.load(data + slot[:, None] * E + e[None, :], mask=inside, other=0)
    if IS_INT8:
        x = x.to(tl.float32) * tl.load(scales + slot, mask=exists, other=0.0)[:, None]
    return x.to(DTYPE)


@triton.jit
def _dot(a: tl.tensor, b: tl.tensor, IS_WIDE: tl.constexpr) -> tl.tensor:
    if IS_WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")


@triton.jit(do_not_specialize=["q_stride", "line_stride", "page_stride"])
def _attend(q: tl.tensor, y: tl.tensor, peaks: tl.tensor, keys: tl.tensor, key_scales: tl.tensor, values: tl.tensor,
            value_scales: tl.tensor, tiles: tl.tensor, table: tl.tensor, q_stride: tl.tensor,
            line_stride: tl.tensor, page_stride: tl.tensor, factor: tl.tensor,
            H: tl.constexpr, K: tl.constexpr, E: tl.constexpr, PAGE: tl.constexpr, WINDOW: tl.constexpr,
            N_PARTS: tl.constexpr, IS_INT8: tl.constexpr, IS_WIDE: tl.constexpr, Q: tl.constexpr, S: tl.constexpr,
            E2: tl.constexpr) -> None:
    """y (N, H, E) from one part; from several, what each of them found: y (M, H, N_PARTS, E) and peaks (M, H, N_PARTS),
    both in float32, a peak being the logarithm of the sum of exponentials, to base 2."""
    G: tl.constexpr = H // K
    DTYPE: tl.constexpr = q.dtype.element_ty
    tile, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    begin, count = tl.load(tiles + 4 * tile), tl.load(tiles + 4 * tile + 1)
    start, line = tl.load(tiles + 4 * tile + 2), tl.load(tiles + 4 * tile + 3)
    query, e = tl.arange(0, Q), tl.arange(0, E2)
    token, head = query // G, kv * G + query % G
    is_query = token < count
    inside = is_query[:, None] & (e < E)[None, :]
    x = tl.load(q + ((begin + token) * q_stride + head * E)[:, None] + e[None, :], mask=inside, other=0.0)

    end = start + count                                  # of the slots that any token of the tile sees
    first = 0
    if WINDOW > 0:
        first = tl.maximum(start - WINDOW + 1, 0) // S
    each = tl.cdiv(tl.cdiv(end, S) - first, N_PARTS)     # blocks of a part
    low = (first + part * each) * S
    high = tl.minimum(low + each * S, end)
    place = start + token
    peak = tl.full([Q], float("-inf"), tl.float32)
    total = tl.zeros([Q], tl.float32)
    mixed = tl.zeros([Q, E2], tl.float32)
    for at in range(low, high, S):
        s = at + tl.arange(0, S)
        exists = s < end
        page = tl.load(table + line * line_stride + s // PAGE * page_stride, mask=exists, other=0).to(tl.int64)
        slot = (page * PAGE + s % PAGE) * K + kv
        scores = _dot(x, tl.trans(_read(keys, key_scales, slot, exists, IS_INT8, DTYPE, E, E2)), IS_WIDE) * factor
        seen = s[None, :] <= place[:, None]
        if WINDOW > 0:
            seen = seen & (s[None, :] > place[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        larger = tl.maximum(peak, tl.max(scores, 1))
        shift = tl.where(larger == float("-inf"), 0.0, larger)                # nothing seen yet: -inf - -inf is NaN
        weights, keep = tl.exp2(scores - shift[:, None]), tl.exp2(peak - shift)
        total = total * keep + tl.sum(weights, 1)
        v = _read(values, value_scales, slot, exists, IS_INT8, DTYPE, E, E2)
        mixed = mixed * keep[:, None] + _dot(weights.to(DTYPE), v, IS_WIDE)
        peak = larger
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    if N_PARTS == 1:
        tl.store(y + ((begin + token) * H + head)[:, None] * E + e[None, :], mixed.to(DTYPE), mask=inside)
    else:                                                # a tile of one token: its heads are the queries
        at = (tile * H + head) * N_PARTS + part
        tl.store(y + at[:, None] * E + e[None, :], mixed, mask=inside)
        tl.store(peaks + at, peak + tl.log2(total), mask=is_query)


@triton.jit
def _join(parts: tl.tensor, peaks: tl.tensor, y: tl.tensor, tiles: tl.tensor, H: tl.constexpr, E: tl.constexpr,
          N_PARTS: tl.constexpr, E2: tl.constexpr) -> None:
    """One token's head: the mean of its parts, each weighted by its sum of exponentials."""
    tile, head = tl.program_id(0), tl.program_id(1)
    begin, count = tl.load(tiles + 4 * tile), tl.load(tiles + 4 * tile + 1)
    part, e = tl.arange(0, N_PARTS), tl.arange(0, E2)
    at = (tile * H + head) * N_PARTS + part
    peak = tl.load(peaks + at)                           # -inf: the part saw nothing
    weights = tl.exp2(peak - tl.max(peak, 0))
    found = tl.load(parts + at[:, None] * E + e[None, :], mask=(e < E)[None, :], other=0.0)
    mixed = tl.sum(found * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(y + (begin * H + head) * E + e, mixed.to(y.dtype.element_ty), mask=e < tl.where(count > 0, E, 0))


def mix_by_triton(q: Tensor, y: Tensor, keys: Store, values: Store, reads: Reads, window: int | None) -> None:
    """Mix of reads.py: q and y (N, H, E), of which y is contiguous."""
    (_, H, E), (_, page, K, _), (M, _), n_parts = q.shape, keys.shape, reads.tiles.shape, reads.n_parts
    (key_data, key_scales), (value_data, value_scales) = _tensors(keys), _tensors(values)
    Q, E2 = (max(16, triton.next_power_of_2(n)) for n in (reads.size * H // K, E))   # a product needs 16 on each side
    found = (y, y) if n_parts == 1 else (q.new_empty(M, H, n_parts, E, dtype=torch.float32),
                                         q.new_empty(M, H, n_parts, dtype=torch.float32))
    _attend[M, K, n_parts](
        q, *found, key_data, key_scales, value_data, value_scales, reads.tiles, reads.table, q.stride(0),
        *reads.table.stride(), E**-0.5 * LOG2_E, H=H, K=K, E=E, PAGE=page, WINDOW=window or 0, N_PARTS=n_parts,
        IS_INT8=isinstance(keys, Int8Store), IS_WIDE=INTERPRETED, Q=Q, E2=E2, **block_of(q.dtype, Q))
    if n_parts > 1:
        _join[M, H](*found, y, reads.tiles, H=H, E=E, N_PARTS=n_parts, E2=E2)


def block_of(dtype: torch.dtype, n_queries: int) -> dict[str, int]:
    """Slots of a block, and how the compiler shall treat it: what lies in shared memory must fit small GPUs' 99 KiB,
    and with fewer warps 64 queries of width 128 don't fit the registers."""
    slots, stages = (64, 2) if dtype.itemsize == 2 else (32, 1)
    return {"S": slots, "num_warps": 4 if n_queries <= 16 else 8, "num_stages": stages}


def _tensors(store: Store) -> tuple[Tensor, Tensor]:
    """Numbers and scales; a plain store's scales are not read."""
    match store:
        case Int8Store():
            return store.data, store.scales
        case PlainStore():
            return store.data, store.data
    raise TypeError(f"pages of {type(store).__name__} have no kernel")
