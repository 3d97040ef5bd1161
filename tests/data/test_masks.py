"""Objectives: nothing is lost, nothing can be read that is hidden, and the statistics are what was asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.mask_undo import undo
from pydantic import ValidationError

from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import ByLoss, Moment, Ramp, Stairs
from ayllu.data.masks import (
    NOTES,
    Causal,
    FillIn,
    Mixture,
    Prefix,
    Spans,
    Tokens,
    apply,
    hide,
    longest,
    name,
    shares,
    ul2,
)
from ayllu.errors import ConfigError, DataError

MARKS = Marks(vocab_size=1000, bos=1, eos=2, pad=3, mask=4, fim=(5, 6, 7, 8), sentinels=tuple(range(10, 110)),
              modes=(110, 111, 112), special=frozenset(range(113)))
OBJECTIVES = [
    Causal(), Prefix(), Prefix(ratio=0.25, mode="s"), Prefix(ratio=0.5, attention="causal"), Spans(),
    Spans(ratio=0.5, mean_span=1.0, mode="x"), Spans(ratio=0.9, mean_span=64.0, attention="prefix"), *ul2(),
    FillIn(), FillIn(spm=0.0), FillIn(spm=1.0), Tokens(), Tokens(ratio=0.6, predicts="next"),
    Tokens(masked=0.0, random=1.0)]
NOW = Moment()


@st.composite
def pieces(draw, least=2):
    """Documents, and parts of documents: the first id may be BOS or any other, an EOS may end them."""
    body = draw(st.lists(st.integers(113, 999), min_size=least - 2, max_size=90))
    head = draw(st.sampled_from([1, 500]))
    tail = [2] if draw(st.booleans()) or len(body) + 1 < least else []
    return np.array([head, *body, *tail])


def generator(*key):
    return np.random.default_rng(key)


@given(pieces(), st.sampled_from(OBJECTIVES), st.integers(0, 10**9))
@settings(max_examples=600, deadline=None)
def test_every_objective_gives_the_document_back(ids, part, seed):
    example = apply(part, ids, MARKS, NOW, generator(seed))
    assert np.array_equal(undo(example, MARKS), ids)
    assert len(example.inputs) == len(example.targets) == len(example.weights)
    assert len(example) <= longest(Mixture(parts=(part,)), len(ids))
    assert 0 <= example.prefix <= len(example)
    assert example.note is None or example.note in NOTES
    assert set(np.unique(example.weights)) <= {0.0, 1.0}


@given(pieces(), st.sampled_from(OBJECTIVES), st.integers(0, 10**9))
@settings(max_examples=400, deadline=None)
def test_nothing_learned_is_visible_to_the_place_that_predicts_it(ids, part, seed):
    """Shifted objectives: a learned target is no input that its place sees. The two-way part must hold none."""
    example = apply(part, ids, MARKS, NOW, generator(seed))
    if example.objective == "tokens":
        return                                           # its own test below: inputs hold no hidden id at all
    assert not example.weights[:max(example.prefix - 1, 0)].any()
    assert np.array_equal(example.inputs[1:], example.targets[:-1])          # place i predicts what i + 1 is given


@given(pieces(least=4), st.sampled_from([p for p in OBJECTIVES if p.kind != "causal"]), st.integers(0, 10**9),
       st.data())
@settings(max_examples=600, deadline=None)
def test_a_hidden_id_changes_nothing_that_its_prediction_sees(ids, part, seed, data):
    """Change one id of the document: everything that may be seen where it is predicted stays as it was."""
    place = data.draw(st.integers(1, len(ids) - 1 - int(ids[-1] == MARKS.eos)))
    other = ids.copy()
    other[place] = 113 + (ids[place] - 113 + 1) % 887
    one, two = (apply(part, x, MARKS, NOW, generator(seed)) for x in (ids, other))
    assert np.array_equal(one.weights, two.weights)      # what is hidden depends on no id
    assert one.prefix == two.prefix
    changed = np.flatnonzero(one.targets != two.targets)
    for predicted in (i for i in changed if one.weights[i]):
        if part.kind == "tokens":                        # everything is seen, so no input may differ at all,
            hidden_as_itself = one.inputs[place] == ids[place] if place < len(one) else False
            if not hidden_as_itself:                     # except the tenth that is left as it stands
                assert np.array_equal(one.inputs, two.inputs)
        else:
            seen = max(predicted + 1, one.prefix)
            assert np.array_equal(one.inputs[:seen], two.inputs[:seen])


def test_those_tests_can_fail():
    """A two-way part one place longer would show the first asked id to the place that predicts it."""
    ids = np.arange(200, 220)
    example = apply(Prefix(ratio=0.5), ids, MARKS, NOW, generator(0))
    asked = int(np.flatnonzero(example.weights)[0])
    assert example.prefix == asked + 1                   # the place that predicts the first asked id ends the prefix
    longer = replace(example, prefix=example.prefix + 1)
    assert longer.weights[:longer.prefix - 1].any()
    assert longer.inputs[longer.prefix - 1] == example.targets[asked]


def test_layouts():
    """The layouts of the docstrings, id for id."""
    ids = np.array([1, 201, 202, 203, 204, 205, 206, 2])
    spans = apply(Spans(ratio=0.5, mean_span=1.5, mode="x"), ids, MARKS, NOW, generator(4))
    assert spans.inputs[:2].tolist() == [1, 112]
    sequence = [*spans.inputs.tolist(), int(spans.targets[-1])]
    second = [i for i, x in enumerate(sequence) if x == 10][1]
    assert spans.weights.tolist() == [float(i >= second) for i in range(len(spans))]
    assert sequence[-2:] == [10 + sum(10 <= x < 110 for x in sequence) // 2, 2]      # <k> EOS
    psm = apply(FillIn(spm=0.0), ids, MARKS, NOW, generator(1))
    spm = apply(FillIn(spm=1.0), ids, MARKS, NOW, generator(1))
    before, after, middle = (_between(psm, first, last) for first, last in ((5, 6), (6, 7), (7, 8)))
    assert [1, *before, *middle, *after, 2] == ids.tolist()
    assert before
    assert [*psm.inputs.tolist(), int(psm.targets[-1])] == [1, 5, *before, 6, *after, 7, *middle, 8, 2]
    assert [*spm.inputs.tolist(), int(spm.targets[-1])] == [1, 5, 6, *after, 7, *before, *middle, 8, 2]
    assert [int(t) for t, w in zip(psm.targets, psm.weights, strict=True) if not w] == [5, 6, 7]


def _between(example, first, last):
    sequence = [*example.inputs.tolist(), int(example.targets[-1])]
    return sequence[sequence.index(first) + 1:sequence.index(last)]


def interval(n, p, miss=1e-6):
    """The narrowest [low, high] around the mean with P(k < low), P(k > high) <= miss / 2 for k ~ Binomial(n, p)."""
    log = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
           for k in range(n + 1)]
    below = np.exp(log).cumsum()
    return int(np.searchsorted(below, miss / 2)), int(np.searchsorted(below, 1 - miss / 2))


@pytest.mark.parametrize("ratio", [0.15, 0.4])
def test_tokens_are_hidden_at_the_ratio_and_80_10_10(ratio):
    ids = np.concatenate([[1], generator(0).integers(113, 1000, 400), [2]])
    examples = [apply(Tokens(ratio=ratio), ids, MARKS, NOW, generator(7, i)) for i in range(100)]
    hidden = np.stack([e.weights > 0 for e in examples])
    low, high = interval(100 * 400, ratio)
    assert low <= hidden.sum() <= high
    assert not hidden[:, [0, -1]].any()                                      # BOS and EOS are always shown
    inputs, n = np.stack([e.inputs for e in examples]), int(hidden.sum())
    masked, kept = (inputs == MARKS.mask) & hidden, (inputs == ids) & hidden
    for count, share in ((masked.sum(), 0.8), ((hidden & ~masked & ~kept).sum(), 0.1 * 886 / 887),
                         (kept.sum(), 0.1 + 0.1 / 887)):                     # a random id may be the true one
        low, high = interval(n, share)
        assert low <= count <= high
    assert np.array_equal(inputs[~hidden], np.broadcast_to(ids, inputs.shape)[~hidden])
    per_place = hidden[:, 1:-1].sum(0)
    low, high = interval(100, ratio, 1e-6 / 400)
    assert low <= per_place.min() <= per_place.max() <= high                 # no place is favoured


@pytest.mark.parametrize(("n", "ratio", "mean"), [(100, 0.15, 3.0), (50, 0.15, 3.0), (130, 0.5, 8.0), (97, 0.3, 2.5)])
def test_spans_have_the_ratio_and_the_length(n, ratio, mean):
    """Only rounding is left to chance: hidden ids are one of two neighbouring counts, and so are spans."""
    ids = np.concatenate([[1], np.arange(200, 200 + n), [2]])
    hidden, spans, wanted = [], [], []
    for i in range(3000):
        example = apply(Spans(ratio=ratio, mean_span=mean), ids, MARKS, NOW, generator(n, i))
        k = int(((example.inputs >= 10) & (example.inputs < 110)).sum() - int(example.targets[-1] != 2) - 1) // 2
        hidden.append(int(example.weights.sum()) - k - 1)                    # spans' ends and EOS are learned too
        spans.append(k)
        wanted.append(hidden[-1] / mean)
    for counts, means in ((hidden, [n * ratio] * 3000), (spans, wanted)):
        floors, parts = np.floor(means), np.array(means) % 1
        assert set(np.array(counts) - floors) <= {0, 1}
        for part in np.unique(parts):                                        # the rounded-up share, exactly binomial
            mine = parts == part
            ups = int((np.array(counts) - floors)[mine].sum())
            low, high = (0, 0) if part < 1e-9 else interval(int(mine.sum()), part)
            assert low <= ups <= high


def test_every_composition_of_spans_is_equally_likely():
    """Two spans in five ids, three hidden: all placements, each with the same probability."""
    ids = np.array([1, 201, 202, 203, 204, 205, 2])
    part = Spans(ratio=0.6, mean_span=1.5)
    found: dict[tuple, int] = {}
    for i in range(4000):
        example = apply(part, ids, MARKS, NOW, generator(i))
        shape = tuple(example.inputs[1:5].tolist())      # two ids and two sentinels, in some order
        found[shape] = found.get(shape, 0) + 1
    # two kept ids around two spans: one stands between them, the other before, between or after; lengths 1+2 or 2+1
    assert len(found) == 6
    low, high = interval(4000, 1 / 6)
    assert low <= min(found.values()) <= max(found.values()) <= high


def test_fill_in_borders_and_the_two_orders():
    ids = np.concatenate([[1], np.arange(200, 209), [2]])
    psm = [apply(FillIn(spm=0.0), ids, MARKS, NOW, generator(i)) for i in range(4000)]
    middles = np.bincount([len(_between(e, 7, 8)) for e in psm], minlength=10)
    for length, count in enumerate(middles):             # |a - b| of two uniform borders in 0..9
        low, high = interval(4000, (10 if length == 0 else 2 * (10 - length)) / 100)
        assert low <= count <= high
    both = [apply(FillIn(spm=0.3), ids, MARKS, NOW, generator(i)) for i in range(4000)]
    low, high = interval(4000, 0.3 + 0.7 * 0.19)         # an empty prefix (0.19) puts the suffix first in PSM too
    assert low <= sum(int(e.inputs[2]) == 6 for e in both) <= high


def test_prefix_borders_are_uniform_or_at_the_ratio():
    ids = np.concatenate([[1], np.arange(200, 210), [2]])
    asked = np.bincount([int(apply(Prefix(), ids, MARKS, NOW, generator(i)).weights.sum()) for i in range(3000)],
                        minlength=12)
    low, high = interval(3000, 1 / 11)
    assert asked[0] == 0
    assert low <= asked[1:].min() <= asked.max() <= high
    ratio = [int(apply(Prefix(ratio=0.25), ids, MARKS, NOW, generator(i)).weights.sum()) for i in range(2000)]
    low, high = interval(2000, 0.75)                     # 11 * 0.25 = 2.75: 3 in three cases of four
    assert set(ratio) == {2, 3}
    assert low <= ratio.count(3) <= high


def test_the_mixture_follows_its_weights_and_its_schedules():
    mixture = Mixture(parts=(Causal(weight=Ramp(kind="linear", start=1.0, end=0.0, steps=100)),
                             Spans(weight=Ramp(kind="linear", start=0.0, end=1.0, steps=100)), Tokens(weight=0.5)))
    ids = np.concatenate([[1], np.arange(200, 240), [2]])
    for step in (0, 25, 100):
        expected = shares(mixture, Moment(step))
        names = [hide(mixture, ids, MARKS, Moment(step), (0, i, step)).objective for i in range(2000)]
        for part, share in zip(mixture.parts, expected, strict=True):
            low, high = interval(2000, share) if 0 < share < 1 else (2000 * share, 2000 * share)
            assert low <= names.count(name(part)) <= high
    with pytest.raises(ConfigError, match="all 2 weights of the mixture are 0 at step 7"):
        shares(Mixture(parts=(Causal(weight=Stairs(values=(1, 0), at=(5,))), FillIn(weight=0))), Moment(7))


def test_a_ratio_that_follows_the_loss():
    part = Tokens(ratio=ByLoss(start=0.4, end=0.1, high=4.0, low=2.0))
    ids = np.concatenate([[1], np.arange(200, 600), [2]])

    def rate(loss):
        return np.mean([apply(part, ids, MARKS, Moment(9, loss), generator(i)).weights.mean() for i in range(50)])

    assert rate(None) == pytest.approx(0.4, abs=0.02)
    assert rate(3.0) == pytest.approx(0.25, abs=0.02)
    assert rate(1.0) == pytest.approx(0.1, abs=0.02)
    assert longest(Mixture(parts=(Spans(ratio=part.ratio, mean_span=1.0),)), 102) == 102 + 2 * 41


def test_a_fresh_mask_at_each_visit_and_the_same_one_for_the_same_visit():
    mixture, ids = Mixture(parts=(Tokens(ratio=0.3),)), np.concatenate([[1], np.arange(200, 260), [2]])
    drawn = {key: hide(mixture, ids, MARKS, NOW, key).inputs.tobytes()
             for key in [(0, 5, 0, 0), (0, 5, 1, 0), (0, 5, 0, 1), (0, 6, 0, 0), (1, 5, 0, 0)]}
    assert len(set(drawn.values())) == 5
    assert all(hide(mixture, ids, MARKS, NOW, key).inputs.tobytes() == found for key, found in drawn.items())


def test_what_is_not_as_asked_says_so():
    short, long = np.array([1, 200, 2]), np.concatenate([[1], np.arange(200, 800), [2]])
    assert apply(Spans(), short, MARKS, NOW, generator(0)).note == "too_short"
    assert apply(FillIn(), short, MARKS, NOW, generator(0)).objective == "causal"
    many = apply(Spans(ratio=0.5, mean_span=1.0), long, MARKS, NOW, generator(0))
    assert many.note == "fewer_spans"
    assert np.array_equal(undo(many, MARKS), long)
    assert (many.inputs == 10 + 99).sum() == 1           # the last sentinel closes the answer
    assert apply(Tokens(ratio=0.0), long, MARKS, NOW, generator(0)).note == "nothing_hidden"


@pytest.mark.parametrize(("part", "lacks"), [
    (Spans(), "sentinels"), (FillIn(), "fim"), (Tokens(), "mask"), (Prefix(mode="s"), "modes")])
def test_a_tokenizer_without_the_ids_is_named(part, lacks):
    with pytest.raises(ConfigError, match=f"needs the reserved ids '{lacks}'"):
        apply(part, np.arange(100, 120), Marks(vocab_size=1000, bos=1, eos=2), NOW, generator(0))


@pytest.mark.parametrize(("part", "reserved"), [(Spans(), 12), (FillIn(), 6)])
def test_a_document_that_holds_reserved_ids_is_refused(part, reserved):
    with pytest.raises(DataError, match=f"holds the reserved id {reserved}"):
        apply(part, np.array([1, 200, reserved, 201, 2]), MARKS, NOW, generator(0))


@pytest.mark.parametrize("make", [
    lambda: Spans(ratio=1.2), lambda: Spans(mean_span=0.5), lambda: Tokens(masked=0.8, random=0.3),
    lambda: Mixture(parts=(Causal(weight=-1.0),)), lambda: Mixture(parts=()),
    lambda: Tokens(ratio=Ramp(kind="cosine", start=0.5, end=1.5, steps=10)), lambda: Stairs(values=(1, 2), at=()),
    lambda: ByLoss(start=1, end=0, high=2, low=3)])
def test_settings_out_of_range(make):
    with pytest.raises(ValidationError):
        make()


def test_a_mixture_from_a_recipe():
    table = {"parts": [{"kind": "causal", "weight": 0.5}, {"kind": "spans", "mode": "r", "ratio": {
        "kind": "cosine", "start": 0.3, "end": 0.15, "steps": 1000}}]}
    mixture = Mixture.model_validate(table)
    assert [name(part) for part in mixture.parts] == ["causal", "spans-r"]
    assert mixture == Mixture.model_validate(mixture.model_dump())
