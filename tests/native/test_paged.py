"""Attention in pages against torch's: all lengths, head groups, widths, page sizes, windows, kinds of pages."""

import ctypes
import subprocess

import pytest
import torch

from ayllu.engine.stores import make_stores
from ayllu.model.attend import sdpa
from ayllu.native import build, paged
from ayllu.native.paged import Pool, Reads, attend

LENGTHS = [1, 3, 16, 17, 63, 64, 65, 130, 200]           # tokens of each row, the new one included
# float32: sums in another order; bfloat16: besides, one rounding of the result, where torch rounds the weights, too
TOLERANCES = {torch.float32: {"atol": 2e-6, "rtol": 1e-5}, torch.bfloat16: {"atol": 1e-2, "rtol": 2e-2}}


class Scene:
    """Rows of pages full of random numbers, and one new token for each row."""

    def __init__(self, dtype=torch.float32, is_int8=False, H=4, K=2, E=64, size=16, window=0, lengths=LENGTHS):
        draw = torch.Generator().manual_seed(0)
        n_pages = [-(-n // size) for n in lengths]
        order = torch.randperm(sum(n_pages) + 3, generator=draw)
        self.pages = order[:sum(n_pages)].split(n_pages)
        buffers, ((self.keys, self.values),) = make_stores((1, 2, len(order), size, K, E), dtype, torch.device("cpu"),
                                                           is_int8)
        for store in (self.keys, self.values):
            store.write(torch.arange(len(order) * size), torch.randn(len(order) * size, K, E, generator=draw).to(dtype))
        self.pool = Pool(self.keys.data, self.values.data, *(s.scales for s in (self.keys, self.values) if is_int8))
        self.buffers, self.lengths, self.window = buffers, lengths, window
        qkv = torch.randn(len(lengths), H + 2 * K, E, generator=draw).to(dtype)
        self.q, self.k, self.v = qkv.split([H, K, K], dim=1)                  # as a fused product gives them
        self.slots = torch.stack([pages[(n - 1) // size] * size + (n - 1) % size
                                  for pages, n in zip(self.pages, lengths, strict=True)])
        begins = torch.tensor([0, *n_pages]).cumsum(0)[:-1].tolist()
        told = [(i, n - 1, begin) for i, (n, begin) in enumerate(zip(lengths, begins, strict=True))]
        self.reads = Reads(torch.tensor(told, dtype=torch.int32), torch.cat(self.pages).int(), window)

    def fast(self, reads=None):
        return attend(self.q, self.k, self.v, self.pool, self.slots, reads or self.reads)

    def slow(self):
        """In float32, from what the stores give, row by row."""
        self.keys.write(self.slots, self.k)
        self.values.write(self.slots, self.v)
        rows = []
        for i, (pages, n) in enumerate(zip(self.pages, self.lengths, strict=True)):
            k, v = (s.read(pages)[None, max(0, n - self.window) if self.window else 0:n].float()
                    for s in (self.keys, self.values))
            rows.append(sdpa(self.q[None, i:i + 1].float(), k, v)[0])
        return torch.cat(rows).to(self.q.dtype)


@pytest.mark.parametrize("more", [
    {}, {"size": 1}, {"size": 7}, {"K": 4}, {"H": 8, "K": 1}, {"H": 6}, {"E": 128}, {"E": 80}, {"E": 8}, {"E": 100},
    {"window": 5}, {"window": 70}, {"H": 4, "K": 1, "E": 24, "window": 1}], ids=str)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "bfloat16 int8"])
def test_against_torch(kind, more):
    dtype = torch.bfloat16 if "bfloat16" in kind else torch.float32
    scene, twin = (Scene(dtype, "int8" in kind, **more) for _ in range(2))
    torch.testing.assert_close(scene.fast(), twin.slow(), **TOLERANCES[dtype])
    for mine, theirs in zip(scene.buffers, twin.buffers, strict=True):
        assert torch.equal(mine, theirs)                 # what is written is the same to the bit


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_row_has_the_same_bits_in_any_company(dtype):
    scene = Scene(dtype)
    together = scene.fast()
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for i in range(len(LENGTHS)):
                alone = scene.fast(Reads(scene.reads.tokens[i:i + 1], scene.reads.tables))
                assert torch.equal(alone[i], together[i])
        finally:
            torch.set_num_threads(before)


def test_the_size_of_pages_changes_no_bit():
    """The same texts in pages of 16 and of 2."""
    large, small = Scene(), Scene(size=2)
    for store, other in ((large.keys, small.keys), (large.values, small.values)):
        for pages, others in zip(large.pages, small.pages, strict=True):
            read = store.read(pages)
            slots = (others[:, None] * 2 + torch.arange(2)).flatten()
            other.write(slots, read[:len(slots)])
    small.q, small.k, small.v = large.q, large.k, large.v
    assert torch.equal(large.fast(), small.fast())


def test_what_is_not_a_number_is_not_hidden():
    scene = Scene()
    scene.q[1, 0, 3] = torch.nan
    scene.v[2, 1, 5] = torch.nan
    y = scene.fast()
    assert y[1, 0].isnan().all()
    assert y[2, 2:, 5].isnan().all()
    assert y.isnan().sum() == 64 + 2


def test_large_scores_do_not_overflow():
    scene, twin = Scene(), Scene()
    scene.q.mul_(300)
    twin.q.mul_(300)
    torch.testing.assert_close(scene.fast(), twin.slow(), atol=1e-4, rtol=1e-4)   # scores of 10^3 have errors of 10^-4


@pytest.mark.slow
def test_without_avx512(monkeypatch, tmp_path):
    """Compiled for any processor, the kernel gives the same within rounding."""
    command = [build.compiler(), *build.PLAIN_FLAGS, str(build.HERE / "paged.cpp"), "-o", str(tmp_path / "paged.so")]
    subprocess.run(command, check=True)
    plain = ctypes.CDLL(str(tmp_path / "paged.so"))
    monkeypatch.setattr(paged, "load", lambda: plain)
    paged.kernel.cache_clear()
    try:
        for kind in ({}, {"dtype": torch.bfloat16}, {"is_int8": True}):
            found, want = Scene(**kind).fast(), Scene(**kind).slow()
            torch.testing.assert_close(found, want, **TOLERANCES[found.dtype])
    finally:
        paged.kernel.cache_clear()
