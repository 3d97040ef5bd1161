"""The same batches for any number of ranks, each window once per epoch, labels one step ahead."""

import numpy as np
import pytest
import torch

from ayllu.data.loader import Batch, WindowLoader

TOKENS = np.arange(1001, dtype="<u2")


def test_each_window_once_per_epoch():
    loader = WindowLoader(TOKENS, context=10, batch_size=20, seed=3)
    starts = torch.cat([loader.batch(step).ids[:, 0] for step in range(5)])
    assert sorted(starts.tolist()) == list(range(0, 1000, 10))
    again = torch.cat([loader.batch(step).ids[:, 0] for step in range(5, 10)])
    assert sorted(again.tolist()) == sorted(starts.tolist())
    assert again.tolist() != starts.tolist()                             # another order in the next epoch


def test_labels_are_the_next_ids():
    batch = WindowLoader(TOKENS, context=10, batch_size=4).batch(7)
    assert torch.equal(batch.labels, batch.ids + 1)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_one_global_batch(world):
    alone = WindowLoader(TOKENS, 10, 8, seed=5).batch(3).ids
    parts = [WindowLoader(TOKENS, 10, 8, seed=5, rank=r, world_size=world).batch(3).ids for r in range(world)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), alone)


def test_a_batch_depends_on_the_step_alone():
    fresh = WindowLoader(TOKENS, 10, 16, seed=1)
    used = WindowLoader(TOKENS, 10, 16, seed=1)
    for step in (0, 9, 4, 30):
        used.batch(step)
    assert torch.equal(fresh.batch(11).ids, used.batch(11).ids)


def test_split_covers_the_batch():
    batch = WindowLoader(TOKENS, 10, 10).batch(0)
    parts = list(batch.split(4))
    assert [len(p) for p in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([p.ids for p in parts]), batch.ids)
    assert isinstance(parts[0], Batch)
