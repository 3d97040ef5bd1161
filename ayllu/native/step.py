"""A whole step of a Llama in one call of C++ (step.cpp), over packed bfloat16 weights.

A step of few rows reads each weight once and does little with it; what a model's some hundred operations cost beside
that is more than the reading of a small model. And no thread waits for another that is late: torch's operations do, at
each of their ends, and where other processes use the same cores that is most of their time. The slow twin is
`FusedRunner.flat` (model/fused.py).

N tokens  K numbers in  O numbers out  D width  F feed-forward width  H heads  G heads of keys  E head width
V vocabulary
"""

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.native.build import NativeError, address, missing, tile_library
from ayllu.native.large import GROUND
from ayllu.native.paged import Pool

# The products of a layer in the order in which their adapters are told.
PARTS = (*(f"attention.w{x}" for x in "qkvo"), *(f"feed_forward.w{x}" for x in "132"))
UNIT, DEEP, ROWS = 64, 32, 32                            # columns, numbers and rows that are computed together
WIDEST, SLOTS = 256, 16                                  # a head for tiles, and what its pages hold multiples of
HALF = UNIT // 2                                         # of such columns: w1's; the others are w3's
# Bytes that one thread reads and multiplies by 32 rows: fewer take less time than another thread may let one wait for
# it where other processes, such as an HTTP server, use the same cores. Vectors need longer for them than tiles do.
WORTH_A_THREAD, WORTH_A_THREAD_BY_TILES = 4 * 2**20, 64 * 2**20
MOST = 512                                               # tokens of a step


class Packed:
    """A product's weight as the kernel reads it, and how it is called."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:   # (O, K), (O,)
        self._library = load()
        self.shape = weight.shape
        self.weight, self.bias = pack(weight), None if bias is None else bias.contiguous()
        O, K = weight.shape                              # noqa: E741 - the legend's letters
        self.told = _Matrix(address(self.weight), address(self.bias), K, O)

    def unpacked(self) -> Tensor:                                             # (O, K)
        """A copy in the plain layout: the same numbers."""
        O, K = self.shape                                # noqa: E741 - the legend's letters
        return self.weight.permute(0, 2, 4, 1, 3, 5).reshape(-1, K)[:O].contiguous()

    def __call__(self, x: Tensor, more: Tensor | None, threads: int) -> Tensor:   # (N, K), (N, O) -> (N, O)
        """The product and `more`. With AMX, x must lie in memory for a multiple of 16 rows."""
        y = torch.empty(len(x), self.shape[0], dtype=torch.bfloat16)
        self._library.ayllu_step_product(address(x), ctypes.c_long(len(x)), ctypes.byref(self.told), address(more),
                                         address(y), threads)
        return y


@dataclass(frozen=True, eq=False)
class Layer:
    """What a layer holds; w13 is w1 and w3 `side_by_side`."""

    attention_norm: Tensor                                                    # (D,)
    qkv: Packed
    wo: Packed
    ffn_norm: Tensor                                                          # (D,)
    w13: Packed
    w2: Packed
    pool: Pool
    window: int = 0


@dataclass(frozen=True, eq=False)
class Weights:
    """A model; `heads`: H, G and E."""

    embedding: Tensor                                                         # (V, D)
    layers: Sequence[Layer]
    norm: Tensor                                                              # (D,)
    head: Packed
    heads: tuple[int, int, int]
    eps: float

    @property
    def layers_matrices(self) -> list[Packed]:
        """All but the head."""
        return [matrix for x in self.layers for matrix in (x.qkv, x.wo, x.w13, x.w2)]


@dataclass(frozen=True, eq=False)
class Adapters:
    """The adapters of a step's tokens. `pairs`: where A (R, K) and B (R, O) of a slot, layer and part begin, and R."""

    pairs: Tensor                                                             # (slots, layers, PARTS, 3) int64
    owners: Tensor                                                            # (N,) int32: slots; -1: none


@dataclass(frozen=True, eq=False)
class Tokens:
    """The new tokens of a step: where each stands, is written, and finds the pages of its row in `tables`."""

    ids: Tensor                                                               # (N,)
    positions: Tensor                                                         # (N,)
    slots: Tensor                                                             # (N,)
    begins: Tensor                                                            # (N,) int32
    tables: Tensor                                                            # int32
    adapters: Adapters | None = None


def pack(weight: Tensor) -> Tensor:
    """(O, K), O filled up with zeros -> (O / 64, K / 32, 4, 16, 16, 2): tiles of 16 pairs of numbers by 16 columns."""
    O, K = weight.shape                                  # noqa: E741 - the legend's letters
    tiles = F.pad(weight, (0, 0, 0, -O % UNIT)).view(-1, 4, 16, K // DEEP, 16, 2).permute(0, 3, 1, 4, 2, 5)
    return GROUND.room(tiles.shape, tiles.dtype).copy_(tiles)


def side_by_side(w13: Tensor) -> Tensor:
    """Rows of w1 and w3 (2F, ...) by turns, 32 of each, so that a gate and what it gates are computed together."""
    n = len(w13) // UNIT
    return w13.view(2, n, HALF, -1).transpose(0, 1).reshape(w13.shape)


class _Matrix(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("K", ctypes.c_long), ("O", ctypes.c_long)]


class _Layer(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_void_p) for name in ("attention_norm", "ffn_norm")),
                *((name, _Matrix) for name in ("qkv", "wo", "w13", "w2")),
                *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
                ("window", ctypes.c_long)]


class _Shape(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_long) for name in ("layers", "D", "F", "H", "G", "E", "size")),
                ("eps", ctypes.c_float), ("embedding", ctypes.c_void_p), ("norm", ctypes.c_void_p)]


class _Tokens(ctypes.Structure):
    _fields_ = [("N", ctypes.c_long),
                *((name, ctypes.c_void_p)
                  for name in ("ids", "positions", "slots", "begins", "tables", "cos", "sin", "pairs", "owners"))]


class _Room(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("x", "h", "qkv", "y", "gated", "both")]


class Step:
    """Computes steps of up to MOST tokens; keys and values are written where they lie."""

    def __init__(self, weights: Weights) -> None:
        self._library, self._worth = load(), bytes_worth_a_thread()
        self._kept: list[Tensor] = []                    # what addresses below point to
        (H, G, E), (_, D) = weights.heads, weights.embedding.shape
        width = weights.layers[0].w2.shape[1]
        self.D, self.V, self._head, self._layers_kept = D, weights.head.shape[0], weights.head, weights.layers
        self._n_bytes = 2 * sum(matrix.shape.numel() for matrix in weights.layers_matrices)
        self._shape = _Shape(len(weights.layers), D, width, H, G, E, weights.layers[0].pool.keys.shape[1], weights.eps,
                             self._keep(weights.embedding), self._keep(weights.norm))
        self._layers = (_Layer * len(weights.layers))(*(self._layer(layer) for layer in weights.layers))
        self._room = _Room(*(self._keep(torch.zeros(MOST, n, dtype=torch.bfloat16))
                             for n in (D, D, (H + 2 * G) * E, H * E, width)))

    def hidden(self, tokens: Tokens, cos: Tensor, sin: Tensor) -> Tensor:     # (positions, E) twice -> (N, D)
        """What the head takes."""
        N = len(tokens.ids)
        y = torch.empty(N, self.D, dtype=torch.bfloat16)
        told = _Tokens(N, *(x.data_ptr() for x in (tokens.ids, tokens.positions, tokens.slots, tokens.begins,
                                                   tokens.tables, cos, sin)))
        if tokens.adapters is not None:
            told.pairs, told.owners = map(address, (tokens.adapters.pairs, tokens.adapters.owners))
            if not self._room.both:
                self._room.both = self._keep(torch.empty(MOST, 2 * self._shape.F, dtype=torch.bfloat16))
        self._library.ayllu_step(ctypes.byref(self._shape), self._layers, ctypes.byref(told), ctypes.byref(self._room),
                                 ctypes.c_void_p(y.data_ptr()), threads_for(self._n_bytes, N, self._worth))
        return y

    def logits(self, hidden: Tensor) -> Tensor:                               # (C, D) -> (C, V)
        """The head."""
        C = len(hidden)
        x = torch.empty(C + -C % ROWS, self.D, dtype=torch.bfloat16)[:C]
        x[:] = hidden
        return self._head(x, None, threads_for(2 * self.V * self.D, C, self._worth))

    def _layer(self, layer: Layer) -> _Layer:
        pool = (layer.pool.keys, layer.pool.values, layer.pool.key_scales, layer.pool.value_scales)
        return _Layer(self._keep(layer.attention_norm), self._keep(layer.ffn_norm), layer.qkv.told, layer.wo.told,
                      layer.w13.told, layer.w2.told, *map(self._keep, pool), layer.window)

    def _keep(self, tensor: Tensor | None) -> ctypes.c_void_p:
        if tensor is not None:
            self._kept.append(tensor)
        return address(tensor)


def bytes_worth_a_thread() -> int:
    """On this CPU."""
    return WORTH_A_THREAD if missing() else WORTH_A_THREAD_BY_TILES


def threads_for(n_bytes: int, rows: int, worth: int) -> int:
    """For a product of so many rows with so many bytes."""
    return min(torch.get_num_threads(), 1 + n_bytes * -(-rows // ROWS) // worth)


def loses_to_tiles(pool: Pool) -> bool:
    """Whether attention can't go by tiles (mix_tiles.h: fits_tiles) where torch's can."""
    _, size, _, E = pool.keys.shape
    fits = pool.keys.dtype == torch.bfloat16 and E % DEEP == 0 and E <= WIDEST and size % SLOTS == 0
    return missing() is None and not fits


def why_not(widths: Sequence[int]) -> str | None:
    """Why matrices that take so many numbers can't be computed so, as the end of a sentence; None where they can."""
    return f"its widths aren't multiples of {DEEP}" if any(width % DEEP for width in widths) else None


@functools.cache
def load() -> ctypes.CDLL:
    """The kernel's library, which is compiled if it never was."""
    library = tile_library("step")
    if not library.ayllu_step_may_run():                 # asks for it, too
        raise NativeError("Linux doesn't let this process use AMX's tiles")
    return library
