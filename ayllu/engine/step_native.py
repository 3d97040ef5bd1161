"""Steps in one call of C++ (native/step.py), where the model, its weights and the CPU allow it.

Steps with a long chunk of a prompt, or with images or sounds, are left to the runner, whose `flat` is the slow twin.
With AMX the weights lie in memory once more for it, so that large models, whose steps are mostly the reading of
weights, don't take it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ayllu.adapters.many import Bank, Mixed
from ayllu.engine.batch import FlatBatch, Span
from ayllu.engine.matrix import NativeMatrix, widths
from ayllu.engine.paged_native import NativeViews, is_few
from ayllu.log import say
from ayllu.model.account import n_parameters
from ayllu.model.adapt import Adapt
from ayllu.model.fused import FusedRunner, Matrix
from ayllu.model.step import Runner
from ayllu.native.build import NativeError
from ayllu.native.step import (
    MOST,
    PARTS,
    Adapters,
    Layer,
    Packed,
    Step,
    Tokens,
    Weights,
    loses_to_tiles,
    side_by_side,
    why_not,
)

MOST_BYTES = 512 * 2**20                                 # of weights that may lie in memory twice
# Of a chunk, in pairs of a token and one that it may see: beyond, torch's attention by AMX is faster. By tiles, and on
# CPUs without AMX, ours is, as far as was measured.
MOST_PAIRS, MOST_FAST_PAIRS = 256 * 256, 512 * 2048


class NativeStep:
    """Computes the batches that it takes."""

    def __init__(self, runner: FusedRunner, views: NativeViews, step: Step) -> None:
        self.runner, self.views, self._step = runner, views, step
        self._pairs: tuple[int, Tensor] | None = None    # of the bank's adapters, after so many changes
        self._most_pairs = MOST_PAIRS if loses_to_tiles(views.pools[0]) else MOST_FAST_PAIRS

    def takes(self, batch: FlatBatch) -> bool:
        """Whether it is for this batch."""
        return len(batch.ids) <= MOST and all(is_few(span) or _pairs(span) <= self._most_pairs for span in batch.chunks)

    def hidden(self, batch: FlatBatch, adapt: Adapt | None = None) -> Tensor: # (N, D)
        """What `logits` takes."""
        adapters = None
        if adapt is not None:
            assert isinstance(adapt, Mixed)
            owners = _int32([-1 if slot is None else slot for slot in adapt.owners])
            adapters = Adapters(self._pairs_of(adapt.bank), owners)
        begins, tables, longest = list[int](), list[int](), 0
        for span in batch.spans:
            begins += [len(tables)] * (span.end - span.begin)
            tables += span.pages
            longest = max(longest, span.length)
        rotations = self.runner.rotations(longest)
        assert rotations is not None
        tokens = Tokens(batch.ids.contiguous(), batch.positions.contiguous(), batch.slots.contiguous(),
                        _int32(begins), _int32(tables), adapters)
        return self._step.hidden(tokens, *rotations)

    def _pairs_of(self, bank: Bank) -> Tensor:           # (slots, layers, PARTS, 3)
        if self._pairs is None or self._pairs[0] != bank.changes:
            n_slots = max(len(a) for a, _ in bank.buffers.values())
            found = torch.zeros(n_slots, self.runner.config.n_layers, len(PARTS), 3, dtype=torch.int64)
            for slot, ranks in bank.ranks.items():
                for (layer, part), rank in ranks.items():
                    a, b = (buffer[slot].data_ptr() for buffer in bank.buffers[layer, part])
                    found[slot, layer, PARTS.index(part)] = torch.tensor([a, b, rank])
            self._pairs = bank.changes, found
        return self._pairs[1]

    def logits(self, hidden: Tensor) -> Tensor | None:                        # (C, D) -> (C, V)
        """The model's head; None where there are too many rows."""
        return self._step.logits(hidden) if len(hidden) <= MOST else None


def make_step(runner: Runner, views: NativeViews) -> NativeStep | None:
    """None where there can be none."""
    if type(runner) is not FusedRunner or runner.dtype != torch.bfloat16 or runner.rotations(1) is None:
        return None
    if why_not(widths(runner.config)):
        return None
    if not isinstance(runner.head, NativeMatrix) and 2 * n_parameters(runner.config) > MOST_BYTES:
        return None
    try:
        return NativeStep(runner, views, Step(_weights(runner, views)))
    except (NativeError, OSError) as error:
        say(f"each step goes through torch, which is slower: {error}")
        return None


def _weights(runner: FusedRunner, views: NativeViews) -> Weights:
    c = runner.config
    layers = [Layer(x.attention_norm, _packed(x.qkv), _packed(x.wo), x.ffn_norm, _packed_gate(x.w13), _packed(x.w2),
                    pool, window or 0)
              for x, pool, window in zip(runner.layers, views.pools, views.windows, strict=True)]
    return Weights(runner.embedding, layers, runner.norm, _packed(runner.head), (c.n_heads, c.n_kv_heads, c.head_dim),
                   c.norm_eps)


def _packed(matrix: Matrix) -> Packed:
    return matrix.product if isinstance(matrix, NativeMatrix) else Packed(matrix.plain(), matrix.bias)


def _packed_gate(matrix: Matrix) -> Packed:
    if isinstance(matrix, NativeMatrix):
        return matrix.product
    bias = None if matrix.bias is None else side_by_side(matrix.bias[:, None])[:, 0]
    return Packed(side_by_side(matrix.plain()), bias)


def _int32(numbers: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(numbers, dtype=np.int32))


def _pairs(span: Span) -> int:
    return (span.end - span.begin) * span.length
