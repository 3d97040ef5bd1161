"""Token shards: nothing is lost between the texts and the ids, and the split never changes."""

import json

import numpy as np
import pytest

from ayllu.data.corpus import Corpus, Source, split, uniform, vocabulary_texts
from ayllu.data.shards import open_shards, prepare, prepare_into
from ayllu.errors import DataError
from ayllu.text.tokenizer import Tokenizer
from ayllu.text.train import train_sentencepiece

WORDS = ["the", "goat", "ran", "to", "the", "river", "and", "从前有一个国王住在山上", "sang", "a", "song", "of", "rain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 30)) + f" {i}" for i in range(200)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    (folder / "one.txt").write_text("\n".join(texts), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(train_sentencepiece(texts, 480, 1.0))
    return folder


def corpus(**changes):
    return Corpus(sources=(Source(path="rows.jsonl", language="en", epochs=1.5),), held_out=0.1, **changes)


def test_split_is_disjoint_complete_and_stable(folder):
    rows = list(split(corpus(), corpus().sources[0], folder))
    assert rows == list(split(corpus(), corpus().sources[0], folder))
    copies = np.array([c for _, c in rows])
    assert len(rows) == 200                                          # epochs >= 1: every document is somewhere
    assert 5 <= (copies == 0).sum() <= 40                            # about 10 % held out
    assert set(copies) == {0, 1, 2}
    assert 0.3 < (copies == 2).sum() / (copies > 0).sum() < 0.7      # half of them once more


def test_ids_spell_the_documents(folder, tmp_path):
    shards = prepare_into(tmp_path / "s", corpus(), folder, folder / "tokenizer.model", workers=1)
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    found = sorted(tokenizer.decode(part) for part in _documents(shards.train(), tokenizer))
    expected = sorted(t for t, c in split(corpus(), corpus().sources[0], folder) for _ in range(c))
    assert found == expected
    ids, n_bytes = shards.held_out()["en"]
    held = [t for t, c in split(corpus(), corpus().sources[0], folder) if not c]
    assert [tokenizer.decode(part) for part in _documents(ids, tokenizer)] == held
    assert n_bytes == sum(len(t.encode()) for t in held)


def test_same_bytes_for_any_number_of_workers(folder, tmp_path):
    one = prepare_into(tmp_path / "1", corpus(), folder, folder / "tokenizer.model", workers=1)
    two = prepare_into(tmp_path / "2", corpus(), folder, folder / "tokenizer.model", workers=2)
    assert one.manifest == two.manifest


def test_plain_file_holds_out_its_end(folder):
    plain = Corpus(sources=(Source(path="one.txt"),), held_out=0.1)
    (start, copies), (end, none) = split(plain, plain.sources[0], folder)
    text = (folder / "one.txt").read_text(encoding="utf-8")
    assert (start + end, copies, none) == (text, 1, 0)
    assert len(end) == round(len(text) * 0.1)


def test_vocabulary_never_sees_held_out_text(folder):
    held = {t for t, c in split(corpus(), corpus().sources[0], folder) if not c}
    assert not held & set(vocabulary_texts(corpus(), folder))


def test_cache_is_found_again_and_damage_is_named(folder, tmp_path):
    first = prepare(corpus(), folder, folder / "tokenizer.model", tmp_path, workers=1)
    again = prepare(corpus(), folder, folder / "tokenizer.model", tmp_path, workers=1)
    assert again.folder == first.folder
    other = prepare(corpus(seed=1), folder, folder / "tokenizer.model", tmp_path, workers=1)
    assert other.folder != first.folder
    (first.folder / "train.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes found, the manifest says"):
        open_shards(first.folder)


def test_missing_source_names_the_remedy(folder, tmp_path):
    missing = Corpus(root="elsewhere", sources=(Source(path="rows.jsonl"),))
    with pytest.raises(DataError, match=r"data\.root=FOLDER"):
        prepare(missing, folder, folder / "tokenizer.model", tmp_path)


def test_uniform_is_uniform_and_a_function_of_the_name():
    draws = np.array([uniform(f"x/{i}") for i in range(4000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert uniform("a") == uniform("a") != uniform("b")


def _documents(ids, tokenizer):
    ids = [int(i) for i in ids]
    out, part = [], []
    for i in ids:
        if i == tokenizer.bos_id:
            part = []
        elif i in tokenizer.eos_ids:
            out.append(part)
        else:
            part.append(i)
    return out
