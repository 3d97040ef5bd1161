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
from ayllu.native.paged import Pool

UNIT, DEEP, ROWS = 64, 32, 32                            # columns, numbers and rows that are computed together
WIDEST, SLOTS = 256, 16                                  # a head for tiles, and what its pages hold multiples of
HALF = UNIT // 2                                         # of such columns: w1's; the others are w3's
# Bytes that one thread reads and multiplies by 32 rows: fewer take less time than another thread may let one wait for
# it where other processes, such as an HTTP server, use the same cores.
WORTH_A_THREAD = 64 * 2**20
MOST = 512                                               # tokens of a step


@dataclass(frozen=True, eq=False)
class Linear:
    """A product's weight, in the plain layout."""

    weight: Tensor                                                            # (O, K)
    bias: Tensor | None = None                                                # (O,)


@dataclass(frozen=True, eq=False)
class Layer:
    """What a layer holds; w13 is w1 over w3."""

    attention_norm: Tensor                                                    # (D,)
    qkv: Linear
    wo: Linear
    ffn_norm: Tensor                                                          # (D,)
    w13: Linear
    w2: Linear
    pool: Pool
    window: int = 0


@dataclass(frozen=True, eq=False)
class Weights:
    """A model; `heads`: H, G and E."""

    embedding: Tensor                                                         # (V, D)
    layers: Sequence[Layer]
    norm: Tensor                                                              # (D,)
    head: Linear
    heads: tuple[int, int, int]
    eps: float

    @property
    def linears(self) -> list[Linear]:
        """All that are packed."""
        return [*(linear for x in self.layers for linear in (x.qkv, x.wo, x.w13, x.w2)), self.head]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The new tokens of a step: where each stands, is written, and finds the pages of its row in `tables`."""

    ids: Tensor                                                               # (N,)
    positions: Tensor                                                         # (N,)
    slots: Tensor                                                             # (N,)
    begins: Tensor                                                            # (N,) int32
    tables: Tensor                                                            # int32


def pack(weight: Tensor) -> Tensor:
    """(O, K), O filled up with zeros -> (O / 64, K / 32, 4, 16, 16, 2): tiles of 16 pairs of numbers by 16 columns."""
    O, K = weight.shape                                  # noqa: E741 - the legend's letters
    tiles = F.pad(weight, (0, 0, 0, -O % UNIT)).view(-1, 4, 16, K // DEEP, 16, 2)
    return tiles.permute(0, 3, 1, 4, 2, 5).contiguous()


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
                  for name in ("ids", "positions", "slots", "begins", "tables", "cos", "sin"))]


class _Room(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("x", "h", "qkv", "y", "gated")]


class Step:
    """Computes steps of up to MOST tokens. The weights are copied, packed; keys and values are written where they lie.
    """

    def __init__(self, weights: Weights) -> None:
        self._library = load()
        self._kept: list[Tensor] = []                    # what addresses below point to
        (H, G, E), (_, D) = weights.heads, weights.embedding.shape
        width = weights.layers[0].w2.weight.shape[1]
        self.D, self.V = D, len(weights.head.weight)
        self._n_bytes = 2 * sum(linear.weight.numel() for linear in weights.linears[:-1])
        self._shape = _Shape(len(weights.layers), D, width, H, G, E, weights.layers[0].pool.keys.shape[1], weights.eps,
                             self._keep(weights.embedding), self._keep(weights.norm))
        self._layers = (_Layer * len(weights.layers))(*(self._layer(layer) for layer in weights.layers))
        self._head = self._matrix(weights.head)
        self._room = _Room(*(self._keep(torch.zeros(MOST, n, dtype=torch.bfloat16))
                             for n in (D, D, (H + 2 * G) * E, H * E, width)))

    def hidden(self, tokens: Tokens, cos: Tensor, sin: Tensor) -> Tensor:     # (positions, E) twice -> (N, D)
        """What the head takes."""
        N = len(tokens.ids)
        y = torch.empty(N, self.D, dtype=torch.bfloat16)
        told = _Tokens(N, *(x.data_ptr() for x in (tokens.ids, tokens.positions, tokens.slots, tokens.begins,
                                                   tokens.tables, cos, sin)))
        self._library.ayllu_step(ctypes.byref(self._shape), self._layers, ctypes.byref(told), ctypes.byref(self._room),
                                 ctypes.c_void_p(y.data_ptr()), _threads(self._n_bytes, N))
        return y

    def logits(self, hidden: Tensor) -> Tensor:                               # (C, D) -> (C, V)
        """The head."""
        C = len(hidden)
        x, y = torch.empty(C + -C % ROWS, self.D, dtype=torch.bfloat16), torch.empty(C, self.V, dtype=torch.bfloat16)
        x[:C] = hidden
        self._library.ayllu_step_product(ctypes.c_void_p(x.data_ptr()), ctypes.c_long(C), ctypes.byref(self._head),
                                         ctypes.c_void_p(y.data_ptr()), _threads(2 * self.V * self.D, C))
        return y

    def _layer(self, layer: Layer) -> _Layer:
        w13 = Linear(side_by_side(layer.w13.weight),
                     None if layer.w13.bias is None else side_by_side(layer.w13.bias[:, None])[:, 0])
        pool = (layer.pool.keys, layer.pool.values, layer.pool.key_scales, layer.pool.value_scales)
        return _Layer(self._keep(layer.attention_norm), self._keep(layer.ffn_norm), self._matrix(layer.qkv),
                      self._matrix(layer.wo), self._matrix(w13), self._matrix(layer.w2), *map(self._keep, pool),
                      layer.window)

    def _matrix(self, linear: Linear) -> _Matrix:
        O, K = linear.weight.shape                       # noqa: E741 - the legend's letters
        bias = None if linear.bias is None else linear.bias.contiguous()
        return _Matrix(self._keep(pack(linear.weight)), self._keep(bias), K, O)

    def _keep(self, tensor: Tensor | None) -> ctypes.c_void_p:
        if tensor is not None:
            self._kept.append(tensor)
        return address(tensor)


def _threads(n_bytes: int, rows: int) -> int:
    return min(torch.get_num_threads(), 1 + n_bytes * -(-rows // ROWS) // WORTH_A_THREAD)


def loses_to_tiles(pool: Pool) -> bool:
    """Whether attention can't go by tiles (mix_tiles.h: fits_tiles) where torch's can."""
    _, size, _, E = pool.keys.shape
    fits = pool.keys.dtype == torch.bfloat16 and E % DEEP == 0 and E <= WIDEST and size % SLOTS == 0
    return missing() is None and not fits


def why_not(weights: Weights) -> str | None:
    """Why these can't be computed so, as the end of a sentence; None where they can."""
    if any(linear.weight.dtype != torch.bfloat16 for linear in weights.linears):
        return "its weights aren't bfloat16"
    if any(linear.weight.shape[1] % DEEP for linear in weights.linears):
        return f"its widths aren't multiples of {DEEP}"
    return None


@functools.cache
def load() -> ctypes.CDLL:
    """The kernel's library, which is compiled if it never was."""
    library = tile_library("step")
    if not library.ayllu_step_may_run():                 # asks for it, too
        raise NativeError("Linux doesn't let this process use AMX's tiles")
    return library
