"""Packed attention by FlexAttention (arXiv:2412.05496): blocks that nobody may see are skipped, not computed.

The slow twin is `Masked` with the mask of `PackedBatch.attend`. Compiled with the training loss on a GPU, this is one
kernel; without a compiler it computes every score, and on a CPU it has no gradient.

B batch  T tokens  H query heads  K key/value heads  E head width
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


@dataclass(frozen=True)
class Flex:
    """Each token sees what `blocks` allows."""

    blocks: BlockMask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[2] != k.shape[2]
        y = flex_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), block_mask=self.blocks,
                           enable_gqa=grouped)                               # (B, H, T, E)
        return y.transpose(1, 2)


def flex(document: Tensor, two_way: Tensor, window: int | None = None) -> Flex:
    """Within each document (B, T): what came before, at most `window` back, and its `two_way` (B, T) places."""
    B, T = document.shape

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        back = i - j
        causal = (back >= 0) & (back < (window or T))
        return (document[b, i] == document[b, j]) & (causal | two_way[b, j])

    return Flex(create_block_mask(sees, B, None, T, T, device=document.device))
