"""Sources with weights: shares of the rows of a batch, what epochs they come to, and the same for all ranks."""

import json
import multiprocessing

import numpy as np
import pytest

from ayllu.config import validate
from ayllu.data.batches import Feed, PackingConfig, repeats, tell
from ayllu.data.corpus import Corpus, Source
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Causal, FillIn, Mixture, Tokens
from ayllu.data.shards import open_shards, prepare, prepare_into
from ayllu.errors import ConfigError
from ayllu.log import setup
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

WEIGHTS = {"goat": 2.0, "dog": 1.0, "hen": 5.0}
MASKS = Mixture(parts=(Causal(), FillIn(), Tokens()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    draw = np.random.default_rng(0)
    everything = []
    for animal, rows in (("goat", 300), ("dog", 100), ("hen", 30)):
        texts = [" ".join([animal] * int(draw.integers(4, 20))) for _ in range(rows)]
        (folder / f"{animal}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        everything += texts
    (folder / "tokenizer.model").write_bytes(train_sentencepiece(everything, 460, 1.0))
    prepare_into(folder / "shards", corpus(), folder, folder / "tokenizer.model", workers=1)
    return folder


def corpus(**weights):
    chosen = {**WEIGHTS, **weights}
    return Corpus(sources=tuple(Source(path=f"{animal}.jsonl", weight=chosen[animal]) for animal in WEIGHTS),
                  held_out=0.0)


def feed(kind="best_fit", **changes):
    masks = MASKS if kind == "best_fit" else Mixture()
    return Feed(**{"corpus": corpus(), "packing": PackingConfig(kind=kind), "masks": masks, "context": 40,
                   "batch_size": 16, "seed": 1} | changes)


def loader(folder, kind="best_fit", rank=0, world_size=1, **changes):
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    return feed(kind, **changes).batches(open_shards(folder / "shards"), Marks.of(tokenizer), rank, world_size)


@pytest.mark.parametrize("kind", ["none", "best_fit"])
def test_rows_come_from_their_sources_in_their_shares(folder, kind):
    tokenizer, found = Tokenizer.load(folder / "tokenizer.model"), dict.fromkeys(WEIGHTS, 0)
    batches = loader(folder, kind)
    for step in range(10):
        for ids in batches.batch(step).ids:
            animals = [animal for animal in WEIGHTS if animal in tokenizer.decode(ids.tolist())]
            assert len(animals) == 1                     # no window holds two sources
            found[animals[0]] += 1
    assert found == {"goat": 40, "dog": 20, "hen": 100}


@pytest.mark.parametrize("kind", ["none", "best_fit"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_one_global_batch(folder, kind, world):
    for step in (0, 7):
        whole = loader(folder, kind).batch(step).ids
        for rank in range(world):
            assert (loader(folder, kind, rank, world).batch(step).ids == whole[rank::world]).all()


def _bytes(work):
    folder, kind, step = work
    return loader(folder, kind).batch(step).ids.numpy().tobytes()


@pytest.mark.parametrize("kind", ["none", "best_fit"])
def test_workers_give_the_same_bytes(folder, kind):
    """Each worker builds its own loader and takes whatever steps come to it."""
    work = [(folder, kind, step) for step in range(6)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_bytes, work, chunksize=1) == [_bytes(one) for one in work]


@pytest.mark.parametrize("kind", ["none", "best_fit"])
def test_the_epochs_that_weights_come_to(folder, kind, capsys):
    batches, shards = loader(folder, kind), open_shards(folder / "shards")
    steps = 50
    visits = dict.fromkeys(range(3), 0)
    for row in range(steps * 16):
        visits[batches.order.turn(row)[0]] += 1
    found = repeats(shards, corpus(), batches.order, steps * 16)
    for number, (one, animal) in enumerate(zip(found, WEIGHTS, strict=True)):
        assert one.path == f"{animal}.jsonl"
        assert one.share == pytest.approx(WEIGHTS[animal] / 8)
        assert one.epochs == visits[number] / batches.order.counts[number]
    assert found[2].epochs > 4                           # few hens, and much weight
    setup()
    tell(found)
    err = capsys.readouterr().err
    assert f"warning: hen.jsonl will be seen {found[2].epochs:.1f} times" in err
    assert "2305.16264" in err
    assert "warning: goat" not in err


def test_epochs_without_weights_count_every_pass(folder, tmp_path, capsys):
    plain = Corpus(sources=(Source(path="goat.jsonl"), Source(path="hen.jsonl", epochs=3)), held_out=0.0)
    shards = prepare(plain, folder, folder / "tokenizer.model", tmp_path, workers=1)
    batches = feed("none", corpus=plain).batches(shards, Marks.of(Tokenizer.load(folder / "tokenizer.model")))
    rows = 2 * batches.order.counts[0]                   # two passes
    goat, hen = repeats(shards, plain, batches.order, rows)
    assert (goat.epochs, hen.epochs) == (2.0, 6.0)
    assert goat.share + hen.share == pytest.approx(1)
    setup()
    tell([goat, hen])
    assert "warning: hen.jsonl will be seen 6.0 times" in capsys.readouterr().err


def test_other_weights_need_no_other_shards_but_are_another_run(folder, tmp_path):
    first = prepare(corpus(), folder, folder / "tokenizer.model", tmp_path, workers=1)
    again = prepare(corpus(hen=1.0), folder, folder / "tokenizer.model", tmp_path, workers=1)
    assert first.folder == again.folder
    assert feed().name(first) != feed(corpus=corpus(hen=1.0)).name(first)
    plain = Corpus(sources=tuple(Source(path=f"{animal}.jsonl") for animal in WEIGHTS), held_out=0.0)
    assert prepare(plain, folder, folder / "tokenizer.model", tmp_path, workers=1).folder != first.folder


@pytest.mark.parametrize(("sources", "says"), [
    ([{"path": "a", "weight": 1}, {"path": "b"}], "b has no weight"),
    ([{"path": "a", "weight": 0}], "all weights of the sources are 0"),
    ([{"path": "a", "weight": 1, "epochs": 2}], "a has epochs and a weight"),
])
def test_what_contradicts_itself(sources, says):
    with pytest.raises(ConfigError, match=says):
        validate(Corpus, {"sources": sources}, "recipe")
