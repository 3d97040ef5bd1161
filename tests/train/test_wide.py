"""A linear layer over grams: against slow twins, beside a head, and written and read again the same."""

import json
import sys
from collections import Counter
from functools import partial
from itertools import pairwise
from math import log
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ayllu.checkpoint.safefile import read_safetensors, write_safetensors
from ayllu.cli.heads import read_head
from ayllu.data.grams import CUT, LONGEST, PLAIN, WORDS, Vocabulary, form_of, grams, signs
from ayllu.errors import CheckpointError, ConfigError, DataError, MissingExtra
from ayllu.train.heads import train_head
from ayllu.train.heads_lesson import prepared_head
from ayllu.train.labeller import Labeller
from ayllu.train.wide import FILE, STRENGTHS, Fits, fit_beside, fit_wide, telling, weighed

TEXTS = ["A fine film, a fine day", "a dull film", "没有意思的电影", "很好的电影 很好", "a day", ""]


def test_grams_tell_texts_apart_as_strings_do():
    def slow(text):
        text = " ".join(text.lower().split())
        return Counter(text[i:i + n] for n in range(1, LONGEST + 1) for i in range(len(text) - n + 1))

    for text in [*TEXTS, "🦙 a\ud800b"]:                  # half a pair of surrogates, too
        runs = grams(text)[1]
        assert sorted(Counter(runs.tolist()).values()) == sorted(slow(text).values())
    assert len(grams("A fine film")[0]) == 5
    assert not len(grams("没有意思")[0])
    assert set(grams("fine film")[0]) <= set(grams("A  FINE film")[0])


def test_weights_are_sublinear_tfidf():
    vocabulary = Vocabulary.of(TEXTS)
    rows = vocabulary.matrix(TEXTS)
    dense = rows.times(torch.eye(len(vocabulary)))                            # (n, F)
    assert torch.equal(rows.transposed(len(vocabulary)).times(torch.eye(len(TEXTS))), dense.T)
    counts = Counter(grams(TEXTS[0])[0].tolist())                     # film, fine and day stand in other texts, too
    rarity = {key: log((1 + len(TEXTS)) / (1 + sum(key in grams(t)[0] for t in TEXTS))) + 1 for key in counts}
    expected = {key: (1 + log(n)) * rarity[key] for key, n in counts.items()}
    norm = sum(value**2 for value in expected.values())**0.5
    norm *= 18 / 17                                      # the comma stands in no word
    for key, value in expected.items():
        assert dense[0, np.searchsorted(vocabulary.keys, key)].item() == pytest.approx(value / norm, rel=1e-5)
    once = set(grams("没")[1].tolist())                   # stands in one text: no run of characters that is kept
    assert not once & set(vocabulary.keys.tolist())
    assert not vocabulary.matrix(["xqz"]).times(torch.ones(len(vocabulary), 1)).any()


def test_words_weigh_as_much_as_of_the_text_they_are():
    """One word of another script in a Chinese text is not half of what is known of it."""
    text = "房间很大，早餐也不错，就是wifi太慢"                          # 4 of 19 characters
    vocabulary = Vocabulary.of([text] * 2)
    row = vocabulary.matrix([text])
    weight = torch.zeros(len(vocabulary)).index_add(0, row.columns, row.values)
    words, letters = (np.isin(vocabulary.keys, part) for part in grams(text)[:2])
    assert weight[torch.from_numpy(words)].norm().item() == pytest.approx(4 / 19)
    assert weight[torch.from_numpy(letters)].norm().item() == pytest.approx(1.0)
    assert not Vocabulary.of(["a", "a"]).matrix(["", "  "]).values.any()


def test_chinese_words_are_those_of_rjieba():
    text = "房间很大，就是wifi太慢"
    words = ["房间", "很大", "就是", "wifi", "太慢"]
    grams_of = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    assert grams(text, CUT)[0].tolist() == [WORDS + crc32(gram.encode()) for gram in grams_of]
    assert [part.tolist() for part in grams(text, CUT)[1:]] == [part.tolist() for part in grams(text)[1:]]
    vocabulary = Vocabulary.of([text] * 2, CUT)
    row = vocabulary.matrix([text])
    weight = torch.zeros(len(vocabulary)).index_add(0, row.columns, row.values)
    inside = torch.from_numpy(np.isin(vocabulary.keys, grams(text, CUT)[0]))
    assert weight[inside].norm().item() == pytest.approx(12 / 13)                    # the comma stands in no word


def test_texts_without_chinese_have_the_same_weights_in_both_forms():
    english = [text for text in TEXTS if text.isascii()]
    assert form_of(english) == PLAIN
    assert form_of(TEXTS) == CUT
    plain, cut = (Vocabulary.of(english, form) for form in (PLAIN, CUT))
    assert np.array_equal(plain.keys, cut.keys)
    for one, other in zip(vars(plain.matrix(english)).values(), vars(cut.matrix(english)).values(), strict=True):
        assert torch.equal(one, other)


def test_the_form_of_older_heads_weighs_as_it_did():
    vocabulary = Vocabulary.of(TEXTS, PLAIN)
    rows = vocabulary.matrix(TEXTS)
    assert crc32(vocabulary.keys.tobytes()) == 278497445                             # counted before Chinese had words
    assert crc32(rows.columns.numpy().tobytes()) == 1241903538
    assert rows.values.double().sum().item() == pytest.approx(25.366985839791596, rel=1e-6)


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("tells", [False, True])
def test_fit_is_where_the_slope_is_zero(kind, tells):
    vocabulary = Vocabulary.of(TEXTS)
    rows = vocabulary.matrix(TEXTS)
    labels = torch.tensor([0, 1, 1, 2, 0, 2])
    wanted = F.one_hot(labels, 3).float() if kind == "multi" else labels
    scale = torch.linspace(0.3, 3.0, len(vocabulary)) if tells else torch.ones(len(vocabulary))
    found = fit_wide(rows, len(vocabulary), wanted, kind, 3, strength=10.0, tells=scale if tells else None)
    found = found.double().requires_grad_()
    dense = rows.times(torch.eye(len(vocabulary))).double()
    logits = dense @ found[:-1] + found[-1]
    loss = (F.binary_cross_entropy_with_logits if kind == "multi" else F.cross_entropy)(
        logits, wanted.double() if kind == "multi" else wanted, reduction="sum")
    (10.0 * loss + (found[:-1] / scale[:, None]).square().sum() / 2).backward()
    # the slope of a mean row is below L-BFGS's tolerance of 1e-6 or its last steps were lost in float32
    assert found.grad.abs().max().item() / (10.0 * len(TEXTS)) < 2e-4


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_what_a_gram_tells_is_what_counting_says(kind):
    """Against the slow way, gram by gram and label by label."""
    vocabulary, labels = Vocabulary.of(TEXTS), [{0}, {1}, {1}, {0, 2}, {0}, {2}]
    if kind == "single":
        labels[3] = {2}
    wanted = torch.tensor([[int(i in one) for i in range(3)] for one in labels])
    labels_of = wanted if kind == "multi" else wanted.argmax(-1)
    found = telling(vocabulary.matrix(TEXTS), len(vocabulary), labels_of, kind, 3)
    most = []
    for key in vocabulary.keys.tolist():
        has = [any(key in part for part in grams(text)) for text in TEXTS]
        odds = []
        for label in range(3):
            near, far = ([h for h, one in zip(has, labels, strict=True) if (label in one) == side]
                         for side in (True, False))
            odds.append(log((sum(near) + 1) / (len(near) + 1)) - log((sum(far) + 1) / (len(far) + 1)))
        most.append(max(max(map(abs, odds)), 1e-3))
    root = (sum(one * one for one in most) / len(most))**0.5
    assert found.tolist() == pytest.approx([one / root for one in most], rel=1e-4)


def test_telling_is_taken_where_it_helps():
    """A hundred words by chance in each text and one that decides, of which a label has several."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    texts = [" ".join([f"u{n}v" for n in torch.randint(400, (40,), generator=random).tolist()]
                      + [f"key{int(label)}{'abcdefghijkl'[int(torch.randint(12, (), generator=random))]}"])
             for label in labels]
    parts = texts[200:], labels[200:], texts[:200], labels[:200]
    deep = torch.zeros(100, 3)
    _, before, _ = fit_beside(list(deep), *parts, "single")
    fits = Fits(*parts, "single", 3)
    plain = min(weighed(deep, fits.tried(one, 0.0, False), labels[200:], "single")[2] for one in STRENGTHS)
    assert F.cross_entropy(torch.stack(before), labels[200:]).item() < plain - 0.05


def test_the_better_side_counts_more():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2000,), generator=random)
    good = 2.0 * F.one_hot(labels, 3) + torch.randn(2000, 3, generator=random)
    noise = torch.randn(2000, 3, generator=random)
    (a, b), correction, loss = weighed(good, noise, labels, "single")
    assert a > 10 * b
    assert loss < F.cross_entropy(good, labels).item()
    assert correction.abs().max() < 0.3                  # nothing is said too rarely here
    (b, a), _, _ = weighed(noise, good, labels, "single")
    assert a > 10 * b


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_what_is_said_too_rarely_is_said_more_often(kind):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (20000,), generator=random)
    deep, wide = (2.0 * F.one_hot(labels, 3) + torch.randn(20000, 3, generator=random) for _ in range(2))
    rarer = torch.tensor([0.0, 0.0, 1.0])
    wanted = F.one_hot(labels, 3).float() if kind == "multi" else labels
    shares, correction, _ = weighed(deep, wide, wanted, kind)
    again, more, _ = weighed(deep - rarer, wide, wanted, kind)
    assert again == pytest.approx(shares, rel=0.1)
    found, expected = more - correction, rarer * again[0]
    if kind == "single":                                 # what is added to all labels changes nothing
        found, expected = found - found.mean(), expected - expected.mean()
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)
    _, little, _ = weighed((deep - rarer)[:4], wide[:4], wanted[:4], kind)
    assert little.abs().max() < more.abs().max()         # four rows prove little


def test_the_lexicon_knows_words_that_no_row_had():
    assert not {"+", "-"} & set(signs("the table stands here"))
    assert {"+", "over 1", "last +3"} <= set(signs("superb"))
    assert {"-", "below 0"} <= set(signs("not good"))
    assert {"+", "over 0"} <= set(signs("很好"))
    words = ["superb", "magnificent", "dazzling", "excellent", "lovely", "delightful", "wonderful", "brilliant",
             "perfect", "clever", "dreadful", "awful", "pathetic", "dull", "boring", "terrible", "horrible", "lame",
             "stupid", "silly"]
    vocabulary = Vocabulary.of([f"what {word} films" for word in words])
    rows = vocabulary.matrix([f"what {word} films" for word in words])
    found = fit_wide(rows, len(vocabulary), torch.tensor([1, 0]).repeat_interleave(10), "single", 2, strength=10.0)
    unknown = ("charming", "enchanting", "fascinating", "ugly", "hideous", "tedious")
    logits = vocabulary.matrix([f"what {word} films" for word in unknown]).times(found[:-1]) + found[-1]
    assert logits.argmax(-1).tolist() == [1, 1, 1, 0, 0, 0]


def test_held_out_logits_are_of_a_layer_that_did_not_learn_them():
    """Labels by chance: who had learned them would be sure of them."""
    random = torch.Generator().manual_seed(0)
    texts = [f"row{i} {'abcdefgh'[i % 8]}{i * 7919 % 1000}" for i in range(300)]
    labels = torch.randint(2, (300,), generator=random)
    deep = torch.randn(100, 2, generator=random)
    _, before, _ = fit_beside(list(deep), texts[200:], labels[200:], texts[:200], labels[:200], "single")
    assert F.cross_entropy(torch.stack(before), labels[200:]).item() > 0.6   # ln 2 is 0.69


def test_a_row_counts_as_often_as_it_says():
    """Against the slow way: the row itself, as often."""
    texts, labels = ["a fine film", "a dull film", "what a day", "a day of rain"], torch.tensor([0, 1, 0, 1])
    vocabulary = Vocabulary.of(texts)
    counted = fit_wide(vocabulary.matrix(texts), len(vocabulary), labels, "single", 2, 3.0,
                       counts=torch.tensor([1.0, 3, 0, 2]))
    as_often = [0, 1, 1, 1, 3, 3]
    rows = vocabulary.matrix([texts[i] for i in as_often])
    repeated = fit_wide(rows, len(vocabulary), labels[as_often], "single", 2, 3.0)
    torch.testing.assert_close(counted, repeated, atol=1e-3, rtol=1e-3)       # a search ends near the best, not at it


@pytest.mark.parametrize("helps", [True, False])
def test_related_texts_count_where_they_help(helps):
    """Words that own rows have once each are told apart by what others say of them; labels by chance count little."""
    random = torch.Generator().manual_seed(1)
    words = [f"{sound}{i}" for i in range(60) for sound in ("pel", "tor")]
    meant = torch.randint(2, (len(words),), generator=random)
    texts = [" ".join(words[i:i + 2]) + f" row{i}" for i in range(0, len(words), 2)]       # what decides is not said
    labels = meant[::2]
    held = [f"{word} once more" for word in words]
    more = [f"again {word} here" for word in words for _ in range(2)]
    theirs = meant.repeat_interleave(2) if helps else torch.randint(2, (len(more),), generator=random)
    deep = [torch.zeros(2)] * len(held)
    wide, before, count = fit_beside(deep, held, meant, texts, labels, "single", (more, theirs))
    plain, without, none = fit_beside(deep, held, meant, texts, labels, "single")
    assert none == 0
    assert (plain.vocabulary.keys == wide.vocabulary.keys).all()
    losses = [F.cross_entropy(torch.stack(found), meant).item() for found in (before, without)]
    if helps:
        assert count >= 0.1
        assert losses[0] < losses[1] - 0.1
    else:
        assert count <= 0.1
        assert losses[0] <= losses[1] + 1e-3


@pytest.mark.parametrize("related", [True, False])
def test_fits_that_serve_several_deep_ones_are_those_that_each_would_have(related):
    random = torch.Generator().manual_seed(2)
    texts = [f"{'abcdefgh'[i % 8]}{i % 30} film row{i}" for i in range(150)]
    labels = torch.randint(2, (150,), generator=random)
    more = (texts[120:], labels[120:]) if related else None
    parts = texts[80:120], labels[80:120], texts[:80], labels[:80], "single"
    shared = Fits(*parts, 2, more)
    for scale in (0.1, 5.0, 0.5):
        deep = list((scale * torch.randn(40, 2, generator=random)) + F.one_hot(parts[1], 2) * scale)
        wide, before, count = shared.beside(deep)
        alone, by_itself, counted = fit_beside(deep, *parts, more)
        assert (wide.shares, count) == (alone.shares, counted)
        assert torch.equal(wide.weight, alone.weight)
        assert torch.equal(wide.bias, alone.bias)
        assert torch.equal(torch.stack(before), torch.stack(by_itself))


@pytest.fixture
def rows(tmp_path):
    table = [{"text": f"{'abc'[i % 3]}{i} stands {'near the river' if i % 4 else 'under stars'} alone",
              "label": "water" if i % 4 else "sky"} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return path


def test_a_head_with_grams_is_measured_written_and_read_the_same(tiny_checkpoint, rows, tmp_path):
    words = [str(rows), f"base={tiny_checkpoint}", "threads=1", "loop.precision=float32", "loop.steps=2",
             "loop.batch_size=8", "ngrams=true", f"out={tmp_path / 'run'}"]
    config, where = read_head(words)
    config, lesson = prepared_head(config, where)
    made = train_head(config, lesson, where)
    assert made["accuracy"]["value"] == 1.0 > made["accuracy_without_ngrams"]    # two steps teach the model little
    labeller = Labeller.load(made["head"])
    texts = [str(row.text) for row in lesson.test.rows]
    assert [a.labels[0] for a in labeller(texts)] == [str(row.label) for row in lesson.test.rows]
    assert labeller([]) == []
    file = tmp_path / "run" / "head" / FILE
    whole = file.read_bytes()
    tensors = {name: entry.read().clone() for name, entry in read_safetensors(file).items()}
    file.unlink()
    with pytest.raises(CheckpointError, match=r"ngrams=true"):
        Labeller.load(made["head"])
    strange = [("keys", lambda: torch.ones(2), (2,)), ("form", lambda: tensors["form"], (1,))]
    write_safetensors(file, strange, lambda name: torch.float64)
    with pytest.raises(CheckpointError, match="another head"):
        Labeller.load(made["head"])
    older = [(name, partial(tensors.__getitem__, name), tuple(t.shape)) for name, t in tensors.items()
             if name != "form"]
    write_safetensors(file, older, lambda name: tensors[name].dtype)
    with pytest.raises(CheckpointError, match="older"):
        Labeller.load(made["head"])
    damaged = bytearray(whole)
    damaged[-4:] = b"\xff\xff\xff\xff"                   # a number that is none
    file.write_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match="damaged"):
        Labeller.load(made["head"])


def test_a_head_says_how_its_chinese_was_cut(tiny_checkpoint, tmp_path, monkeypatch, caplog):
    path = tmp_path / "rows.jsonl"
    table = [{"text": f"{i}楼的房间{'很干净' if i % 2 else '又脏又旧'}，早餐{i}", "label": "good" if i % 2 else "bad"}
             for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")

    def made(out):
        words = [str(path), f"base={tiny_checkpoint}", "threads=1", "loop.precision=float32", "loop.steps=1",
                 "loop.batch_size=8", "ngrams=true", f"out={tmp_path / out}"]
        return train_head(*prepared_head(*read_head(words)), read_head(words)[1])

    with_words = made("with")
    assert with_words["chinese_words"] is True
    texts = ["房间很干净", "又脏又旧的房间"]
    said = [answer.probabilities for answer in Labeller.load(with_words["head"])(texts)]
    assert [answer.probabilities for answer in Labeller.load(with_words["head"])(texts)] == said
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "rjieba", None)
        with pytest.raises(MissingExtra, match=r"grams.safetensors.*ayllu\[chinese\]"):
            Labeller.load(with_words["head"])
        without = made("without")
        assert "characters alone" in caplog.text
        assert without["chinese_words"] is False
        said = [answer.probabilities for answer in Labeller.load(without["head"])(texts)]
    assert [answer.probabilities for answer in Labeller.load(without["head"])(texts)] == said    # rjieba or not


def test_grams_are_for_labels_of_whole_texts(rows, tiny_checkpoint):
    with pytest.raises(ConfigError, match="whole texts"):
        read_head([str(rows), f"base={tiny_checkpoint}", "kind=tokens", "ngrams=true"])


def test_related_rows_are_read_and_what_is_measured_is_left_out(tiny_checkpoint, rows, tmp_path, caplog):
    own = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    more = [{"text": f"Another one, {'near the river' if i % 2 else 'under stars'}: {i}",
             "label": "water" if i % 2 else "sky"} for i in range(8)]
    others = tmp_path / "others.jsonl"
    again = {**own[3], "text": own[3]["text"].upper() + "!"}
    others.write_text("".join(json.dumps(row) + "\n" for row in [*more, again]), encoding="utf-8")
    words = [str(rows), f"base={tiny_checkpoint}", "threads=1", "loop.precision=float32", "loop.steps=2",
             "loop.batch_size=8", "ngrams=true", f'data.related=["{others}"]', f"out={tmp_path / 'run'}"]
    config, where = read_head(words)
    caplog.set_level("INFO", logger="ayllu")
    config, lesson = prepared_head(config, where)
    assert len(lesson.related) == 8
    assert "8 related rows for the layer beside the model; 1 more are left out" in caplog.text
    made = train_head(config, lesson, where)
    assert made["related"]["rows"] == 8
    plain, _ = read_head([*words[:-2], f"out={tmp_path / 'plain'}"])
    assert prepared_head(plain, where)[1].digest != lesson.digest
    others.write_text(json.dumps({"text": "A desert", "label": "sand"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="sand"):
        prepared_head(config, where)
    with pytest.raises(ConfigError, match=r"data\.related is for the layer beside the model"):
        read_head([word for word in words if word != "ngrams=true"])
