"""Attention over pages against attention over the whole text: rows of very different lengths, windows, chunks."""

import pytest
import torch
from engine.small import MODELS, model_of

from ayllu.engine.batch import flat_batch
from ayllu.engine.paged import PagedCache
from ayllu.engine.paged_native import NativeViews
from ayllu.engine.plan import Plan, Row, Work
from ayllu.engine.request import Request
from ayllu.model.step import EagerRunner
from ayllu.native.build import missing_vectors

LENGTHS = [1, 3, 90, 17, 16, 64, 65, 2, 33, 80]          # tokens of each row when its last one is computed
SIZE = 2


WAYS = ["torch", pytest.param("native", marks=pytest.mark.skipif(bool(missing_vectors()), reason="no C++ compiler"))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n_last", [1, 5])
@pytest.mark.parametrize("name", ["gqa", "mistral", "transformer"])
def test_rows_of_all_lengths(name, n_last, way):
    """First everything but the last tokens, then these, all rows together; float32, sums in another order."""
    model = model_of(name)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, 101, (n,), generator=generator).tolist() for n in LENGTHS]
    order = torch.randperm(400, generator=generator).tolist()
    rows = [Row(i, 0, Request(tuple(ids)), ids, 1, 0.0, b"", pages=[order.pop() for _ in range(-(-len(ids) // SIZE))])
            for i, ids in enumerate(texts)]
    cache = PagedCache(MODELS[name], 400, SIZE, dtype=torch.float32, device=torch.device("cpu"))
    views = cache if way == "torch" else NativeViews(cache)
    cache.stores[0][0].data.fill_(100.0)                 # what lies in unread slots must not matter
    borders = [max(0, len(ids) - n_last) for ids in texts]
    with torch.inference_mode():
        for begins, ends in (([0] * len(rows), borders), (borders, list(map(len, texts)))):
            works = tuple(Work(row, a, b) for row, a, b in zip(rows, begins, ends, strict=True) if b > a)
            batch = flat_batch(Plan(works, ()), SIZE, cache.device)
            attends = views.attends(batch)
            hidden = EagerRunner(model).flat(batch.ids, batch.positions, attends)
        if way == "torch":                               # windows are all of one length
            assert (len(attends[0].singles) > 2) == (n_last == 1 and name != "mistral")
        for work, span in zip(batch.works, batch.spans, strict=True):
            want = model.trunk(model.embed(torch.tensor([work.row.ids])))[0, work.begin:]
            torch.testing.assert_close(hidden[span.begin:span.end], want, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(bool(missing_vectors()), reason="no C++ compiler")
def test_long_chunks_go_through_torch():
    cache = PagedCache(MODELS["gqa"], 60, SIZE, dtype=torch.float32, device=torch.device("cpu"))
    ids = list(range(3, 123))
    rows = [Row(i, 0, Request(tuple(ids)), ids, 1, 0.0, b"", pages=list(range(60))) for i in range(4)]
    works = (Work(rows[0], 0, 33), Work(rows[1], 0, 32), Work(rows[2], 110, 118), Work(rows[3], 105, 114))
    attend = NativeViews(cache).attends(flat_batch(Plan(works, ()), SIZE, cache.device))[0]
    assert [chunk.end - chunk.begin for chunk in attend.chunks] == [33, 9]
    assert attend.reads.tokens[:, 1].tolist() == [*range(32), *range(110, 118)]


def test_pages_are_copied_as_they_were():
    cache = PagedCache(MODELS["gqa"], 6, SIZE, dtype=torch.float32, device=torch.device("cpu"), is_int8=True)
    for buffer in cache.buffers:
        buffer.copy_(torch.arange(6).view(6, *[1] * (buffer.dim() - 3)).expand(buffer.shape))
    cache.copy([(0, 1), (1, 2), (5, 0)])
    want = torch.tensor([5, 0, 1, 3, 4, 5])
    for buffer in cache.buffers:
        assert (buffer.flatten(3) == want[:, None]).all()
