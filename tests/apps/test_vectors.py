"""Dense search: exact is exact, filters hold, faiss finds the same, and rankings fuse as the weights say."""

import numpy as np
import pytest

from ayllu.apps.collection import DENSE, DENSE_SHORT, Collection
from ayllu.apps.index import embedding
from ayllu.apps.index.embedding import TokenVectors, embedder_of
from ayllu.apps.index.vectors import Corrected, Vectors
from ayllu.errors import ConfigError, MissingExtra, RequestError


class Bytes:
    """A text's vector is how often each of its bytes occurs."""

    def __init__(self, name="bytes"):
        self.name, self.n_texts = name, 0

    def embed(self, texts):
        self.n_texts += len(texts)
        return np.stack([np.bincount(np.frombuffer(t.encode(), np.uint8), minlength=256)[32:128]
                         for t in texts]).astype(np.float32)


def slow(collection, embedder, question):
    """Every chunk, one after another: the same formula without blocks, halves or lists."""
    rows = collection.store.rows("SELECT id, text FROM chunks ORDER BY id")
    vectors = embedder.embed([row["text"] for row in rows])
    correct = Corrected.of(vectors)
    scores = correct(vectors) @ correct(embedder.embed([question]))[0]
    return [rows[i]["id"] for i in np.argsort(-scores, kind="stable")], np.sort(scores)[::-1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghij klm"))
    with Collection(tmp_path_factory.mktemp("many") / "c.sqlite") as found:
        found.add_texts({f"{i % 2}/{i:03d}": "".join(rng.choice(letters, 40)) + f" {i}" for i in range(300)})
        found.add_vectors(Bytes())
        yield found


def test_exact_search_is_the_slow_one(many):
    embedder = Bytes()
    ids, scores = slow(many, embedder, "abba cab")
    found = many.ranked("abba cab", 50, way="dense", embedder=embedder)
    assert [score for _, score in found] == pytest.approx(scores[:50], abs=2e-3)         # stored in half precision
    assert len({i for i, _ in found} & set(ids[:50])) >= 48                              # which may turn close ones


def test_filters_hold(many):
    found = many.search("abba cab", k=10, where={"source": "1/*"}, way="dense", embedder=Bytes())
    assert len(found) == 10
    assert all(p.source.startswith("1/") for p in found)
    assert many.search("abba", where={"source": "nothing"}, way="dense", embedder=Bytes()) == []


def test_faiss_finds_what_exact_search_finds(many, monkeypatch):
    faiss = pytest.importorskip("faiss")
    embedder = Bytes()
    exact = Vectors(many.store).search(embedder, "abba cab", 10)
    beyond = Vectors(many.store, exact=100)
    beyond.search(embedder, "abba cab", 10)
    assert isinstance(beyond._index, faiss.IndexIVF)
    beyond._index.nprobe = beyond._index.nlist
    assert [i for i, _ in beyond.search(embedder, "abba cab", 10)] == [i for i, _ in exact]
    assert beyond.search(embedder, "abba", 5, {"source": "1/*"})          # a filter is exact again
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtra, match="vectors"):
        Vectors(many.store, exact=100).search(embedder, "abba", 5)


def test_only_new_chunks_are_embedded(tmp_path):
    with Collection(tmp_path / "c.sqlite") as found:
        with pytest.raises(RequestError, match="no vectors"):
            found.search("x", way="dense")
        found.add_texts({"a": "alpha", "b": "beta"})
        first = Bytes()
        found.add_vectors(first)
        found.add_texts({"c": "gamma"})
        found.add_vectors(first)
        assert first.n_texts == 3
        other = Bytes("other")
        found.add_vectors(other)
        assert other.n_texts == 3
        assert found.search("gamma", way="dense", embedder=other)[0].source == "c"
        found.remove(["c"])
        assert "c" not in {p.source for p in found.search("gamma", way="dense", embedder=other)}


def test_the_hybrid_follows_its_weight(many):
    embedder = Bytes()
    words = [i for i, _ in many.ranked("7 abba", 20, way="words")]
    dense = [i for i, _ in many.ranked("7 abba", 20, way="dense", embedder=embedder)]
    assert [i for i, _ in many.ranked("7 abba", 20, weight=0, embedder=embedder)] == words
    assert [i for i, _ in many.ranked("7 abba", 20, weight=1, embedder=embedder)] == dense
    mixed = [i for i, _ in many.ranked("7 abba", 20, weight=0.5, embedder=embedder)]
    assert set(mixed[:4]) & set(words[:2])
    assert set(mixed[:4]) & set(dense[:2])


def test_reciprocal_ranks_on_request(many):
    embedder = Bytes()
    words = [i for i, _ in many.ranked("7 abba", 100, way="words")]
    dense = [i for i, _ in many.ranked("7 abba", 100, way="dense", embedder=embedder)]
    fused = many.ranked("7 abba", 100, way="rrf", embedder=embedder)
    places = {i: sum(1 / (60 + ranking.index(i) + 1) for ranking in (words, dense) if i in ranking) for i, _ in fused}
    assert [score for _, score in fused] == pytest.approx(sorted(places.values(), reverse=True))
    assert dict(fused) == pytest.approx(places)


def test_short_texts_weigh_vectors_more(many, tmp_path):
    assert many.dense_weight() == DENSE_SHORT
    with Collection(tmp_path / "long.sqlite") as found:
        assert found.dense_weight() == DENSE
        found.add_texts({"a": "word " * 100})
        assert found.dense_weight() == DENSE


def test_a_correction_makes_lengths_one_and_weakens_what_all_share():
    rng = np.random.default_rng(1)
    common = rng.normal(size=16)
    vectors = rng.normal(size=(400, 16)) + 10 * rng.normal(size=(400, 1)) * common
    found = Corrected.of(vectors)(vectors)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    before, after = (np.linalg.eigvalsh(np.cov(x, rowvar=False)) for x in (vectors, found))
    assert before[-1] / before[0] > 500
    assert after[-1] / after[0] < 50
    assert np.isfinite(Corrected.of(vectors[:1])(vectors[:1])).all()


def test_the_token_table_of_the_bundled_model():
    embedder = TokenVectors()
    vectors = embedder.embed(["return the shoes", "", "退货"])
    assert vectors.shape == (3, 256)
    assert vectors[1].any() == 0
    assert vectors[0] @ embedder.embed(["shoes return"])[0] > vectors[0] @ vectors[2]
    assert embedder_of("tokens:ayllu-mini").name == embedding.TOKENS == embedder.name
    for name in ("ayllu-mini", "tokens:", "other:x"):
        with pytest.raises(ConfigError, match="tokens:MODEL"):
            embedder_of(name)
