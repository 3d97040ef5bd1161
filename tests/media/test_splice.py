"""Marks, placeholders and features: as many of one as of the other, and a text alone stays as it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ayllu.errors import RequestError
from ayllu.media.project import Projector, ProjectorConfig, gathered
from ayllu.media.splice import expanded, spliced

MARKS = (7, 8)


@given(st.lists(st.integers(0, 12), max_size=30), st.data())
def test_features_lie_where_their_marks_were(ids, data):
    n = sum(id in MARKS for id in ids)
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    out, places = expanded(ids, MARKS, lengths)
    assert [place.length for place in places] == lengths
    assert len(out) == len(ids) - n + sum(lengths)
    kept = [id for i, id in enumerate(out) if not any(p.start <= i < p.start + p.length for p in places)]
    assert kept == [id for id in ids if id not in MARKS]
    embeddings = torch.randn(len(out), 3)
    features = [torch.full((length, 3), float(100 + i)) for i, length in enumerate(lengths)]
    found = spliced(embeddings, places, features)
    assert found.shape == embeddings.shape
    for i in range(len(out)):
        place = next((p for p in places if p.start <= i < p.start + p.length), None)
        assert torch.equal(found[i], embeddings[i] if place is None else features[place.number][0])


def test_counts_are_enforced():
    for ids, lengths in (([1, 7, 2], []), ([1, 2], [3]), ([7, 8], [3])):
        with pytest.raises(RequestError, match=f"{sum(i in MARKS for i in ids)} marks.*{len(lengths)} were given"):
            expanded(ids, MARKS, lengths)
    _, places = expanded([1, 7], MARKS, [3])
    with pytest.raises(RequestError, match="2 features and 3 placeholders"):
        spliced(torch.zeros(4, 2), places, [torch.zeros(2, 2)])


def test_a_text_alone_is_untouched():
    embeddings = torch.randn(4, 2)
    assert spliced(embeddings, [], []) is embeddings


@pytest.mark.parametrize("gather", ["none", "stack", "pool"])
@pytest.mark.parametrize("kind", ["linear", "mlp", "swiglu"])
def test_projectors(kind, gather):
    projector = Projector(ProjectorConfig(kind=kind, gather=gather, every=4, width=6, out=10))
    for n in (1, 4, 9, 12):
        assert projector(torch.randn(2, n, 6)).shape == (2, projector.n_places_of(projector.config, n), 10)


def test_gathering_is_what_it_says():
    x = torch.arange(10.0).view(1, 5, 2)
    stacked = gathered(x, ProjectorConfig(gather="stack", every=2, width=2, out=1))
    assert stacked.tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]]
    pooled = gathered(x, ProjectorConfig(gather="pool", every=2, width=2, out=1))
    assert pooled.tolist() == [[[1, 2], [5, 6], [8, 9]]]
