"""The slow, obvious twin of the Triton kernel: the same `Mix` in plain torch. Every slot of every table line is read
and masked, and no shape depends on the numbers in the tensors, so that it can be recorded as a CUDA graph is.

M tiles  T tokens of a tile  N tokens  R rows  S slots of a line  H query heads  K key/value heads  E head width
"""

import torch

from ayllu.model.attend import sdpa


def plain_mix(q, y, keys, values, reads, window):
    begin, count, start, line = reads.tiles.long().unbind(1)                  # (M,)
    (N, _, E), K, R = q.shape, keys.shape[2], len(reads.table)
    step = torch.arange(reads.size, device=q.device)
    token, place = begin[:, None] + step, start[:, None] + step               # (M, T)
    k, v = (store.read(reads.table.flatten().long()).view(R, -1, K, E)[line] for store in (keys, values))
    slot = torch.arange(k.shape[1], device=q.device)
    seen = slot <= place[..., None]                                           # (M, T, S)
    if window is not None:
        seen = seen & (slot > place[..., None] - window)
    mixed = sdpa(q[token.clamp(max=N - 1)], k, v, mask=seen[:, None])         # (M, T, H, E)
    target = torch.where(step < count[:, None], token, N)                     # a line too many takes what isn't there
    longer = torch.cat((y, y[:1]))
    longer.index_copy_(0, target.flatten(), mixed.flatten(0, 1))
    y.copy_(longer[:N])
