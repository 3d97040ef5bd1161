"""Packing: every id once, nothing split that fits, the slow twin's windows exactly; batches for ranks and resumes."""

import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.mask_undo import undo
from untamed import untamed

from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import ByLoss, Ramp
from ayllu.data.masks import Causal, FillIn, Mixture, Prefix, Spans, Tokens, longest, ul2
from ayllu.data.pack import best_fit, document_starts, pack
from ayllu.data.pack_loader import PADDING, PackedLoader
from ayllu.errors import ConfigError, DataError
from ayllu.model.attend import Masked, packed, within
from ayllu.model.config import LlamaConfig

MARKS = Marks(vocab_size=400, bos=1, eos=2, pad=3, mask=4, fim=(5, 6, 7, 8), sentinels=tuple(range(10, 110)),
              modes=(110, 111, 112), special=frozenset(range(113)))
EVERYTHING = Mixture(parts=(
    Causal(weight=Ramp(kind="linear", start=2.0, end=0.5, steps=4)), Prefix(), FillIn(), Tokens(),
    Spans(ratio=Ramp(kind="cosine", start=0.4, end=0.1, steps=6)), *ul2()))


def corpus(seed=0, n=60, longest=90):
    draw = np.random.default_rng(seed)
    parts = [[1, *draw.integers(113, 400, draw.integers(0, longest)), 2] for _ in range(n)]
    return np.concatenate(parts).astype("<u2")


def slow_best_fit(rooms, capacity):
    """Every window is looked at for every item."""
    windows, free = np.full(len(rooms), -1), []
    for item in sorted(range(len(rooms)), key=lambda i: (-rooms[i], i)):
        fitting = [(left, number) for number, left in enumerate(free) if left >= rooms[item]]
        if fitting:
            _, window = min(fitting)
        else:
            window = len(free)
            free.append(capacity)
        free[window] -= rooms[item]
        windows[item] = window
    return windows


@given(st.lists(st.integers(1, 30), max_size=120), st.integers(30, 64))
@settings(max_examples=200, deadline=None)
def test_best_fit_equals_its_slow_twin(rooms, capacity):
    rooms = np.array(rooms, dtype=np.int64)
    assert np.array_equal(best_fit(rooms, capacity), slow_best_fit(rooms, capacity))


def test_best_fit_takes_the_fullest_window_that_has_room():
    assert best_fit(np.array([6, 5, 4, 3, 2]), 10).tolist() == [0, 1, 0, 1, 1]
    with pytest.raises(DataError, match="needs 11 places, a window has 10"):
        best_fit(np.array([11]), 10)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(4, 48), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_every_id_lies_in_exactly_one_piece(lengths, capacity, extra):
    """The parts of a document overlap by the one given id; only documents past a window are split."""
    starts, n_ids = np.cumsum([0, *lengths[:-1]]), sum(lengths)
    plan = pack(starts, n_ids, capacity, lambda n: n - 1 + extra)
    learned = np.zeros(n_ids, dtype=int)
    for start, end in zip(plan.starts, plan.ends, strict=True):
        learned[start + 1:end] += 1
    first = np.zeros(n_ids, dtype=bool)
    first[starts] = True
    assert (learned == ~first).all()                     # each id but a document's first is predicted once
    number = np.cumsum(first) - 1
    assert (number[plan.starts] == plan.documents).all()
    assert (number[plan.ends - 1] == plan.documents).all()
    parts = np.bincount(plan.documents, minlength=len(lengths))
    for length, n in zip(lengths, parts, strict=True):
        assert (n == 0) == (length < 2)
        assert n <= 1 or length - 1 + extra > capacity   # none is split that fits
    assert plan.split == (parts > 1).sum()
    assert plan.too_short == (parts == 0).sum() == plan.report()["documents_too_short"]
    used = [plan.rooms[list(plan.window(w))].sum() for w in range(len(plan))]
    assert max(used, default=0) <= capacity
    assert min(used, default=1) > 0
    assert sorted(p for w in range(len(plan)) for p in plan.window(w)) == list(range(len(plan.documents)))


def test_a_window_too_small_for_anything():
    with pytest.raises(ConfigError, match="window of 3 places is too small"):
        pack(np.array([0]), 10, 3, lambda n: n + 3)


@pytest.mark.parametrize(("ids", "bos", "eos", "starts"), [
    ([1, 5, 2, 1, 2, 1, 7], 1, 2, [0, 3, 5]), ([5, 2, 2, 7, 2], None, 2, [0, 2, 3]), ([9, 9, 1, 5], 1, 2, [0, 2]),
    ([5, 5], None, 2, [0]), ([], 1, 2, [])])
def test_documents_begin_at_their_marks(ids, bos, eos, starts, monkeypatch):
    ids = np.array(ids, dtype="<u2")
    assert document_starts(ids, bos, eos).tolist() == starts
    monkeypatch.setattr("ayllu.data.pack.CHUNK", 2)      # borders of chunks change nothing
    assert document_starts(ids, bos, eos).tolist() == starts
    with pytest.raises(DataError, match="neither BOS nor EOS"):
        document_starts(ids, None, None)


def loader(**changes):
    return PackedLoader(**{"tokens": corpus(), "marks": MARKS, "context": 96, "batch_size": 8, "seed": 3,
                           "mixture": EVERYTHING} | changes)


def test_an_epoch_holds_every_document_once_and_gives_it_back():
    one = loader(batch_size=1)
    tokens, found = corpus(), []
    for window in range(len(one.packing)):
        for piece, example in zip(one.packing.window(window), one.examples(window, 0, 5), strict=True):
            ids = undo(example, MARKS)
            assert np.array_equal(ids, tokens[one.packing.starts[piece]:one.packing.ends[piece]])
            found.append((int(one.packing.documents[piece]), int(one.packing.starts[piece])))
    assert len(found) == len(set(found)) == len(one.packing.documents)
    assert sorted({d for d, _ in found}) == list(range(60))
    seen = [one.order.at(i) for i in range(2 * len(one.packing))]
    assert sorted(seen) == sorted((w, e) for w in range(len(one.packing)) for e in (0, 1))


def test_rows_hold_the_examples():
    source = loader()
    batch = source.batch(2)
    for row in range(8):
        examples = source.examples(*source.order.at(16 + row), 2)
        at = 0
        for number, example in enumerate(examples):
            here = slice(at, at + len(example))
            assert batch.ids[row, here].tolist() == example.inputs.tolist()
            assert batch.labels[row, here].tolist() == [
                int(t) if w else -100 for t, w in zip(example.targets, example.weights, strict=True)]
            assert batch.positions[row, here].tolist() == list(range(len(example)))
            assert (batch.document[row, here] == number).all()
            assert batch.two_way[row, here].tolist() == [i < example.prefix for i in range(len(example))]
            at += len(example)
        assert (batch.document[row, at:] == PADDING).all()
        assert (batch.labels[row, at:] == -100).all()
        assert not batch.weights[row, at:].any()
    assert batch.counts["learned"] == int((batch.labels != -100).sum()) == int(batch.weights.sum())
    assert batch.counts["places"] == 8 * 96
    assert batch.counts["filled"] == int((batch.document != PADDING).sum())


def as_bytes(batch):
    return b"".join(tensor.numpy().tobytes() for tensor in batch.tensors().values())


def whole(batches):
    """The global batch from its ranks' parts."""
    columns = zip(*(b.tensors().values() for b in batches), strict=True)
    return b"".join(torch.stack(c, 1).flatten(0, 1).contiguous().numpy().tobytes() for c in columns)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_one_global_batch(world):
    for step in (0, 3, 11):
        parts = [loader(rank=r, world_size=world).batch(step) for r in range(world)]
        assert whole(parts) == as_bytes(loader().batch(step))
        assert sum((p.counts for p in parts), start=type(parts[0].counts)()) == loader().batch(step).counts


def _one(step):
    return as_bytes(loader().batch(step))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_give_the_same_bytes(workers):
    """Each worker process builds its own loader and takes whatever steps come to it."""
    alone = loader()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        assert pool.map(_one, range(6), chunksize=1) == [as_bytes(alone.batch(step)) for step in range(6)]


def test_a_resume_gives_the_same_bytes():
    """With a schedule that follows the loss, the state is what makes the difference."""
    mixture = Mixture(parts=(Tokens(ratio=ByLoss(start=0.5, end=0.1, high=5.0, low=2.0)), Causal()))
    losses = np.linspace(6.0, 1.0, 12)
    whole_run, through, state = loader(mixture=mixture), [], {}
    for step, loss in enumerate(losses):
        if step == 7:
            state = whole_run.state()
        through.append(as_bytes(whole_run.batch(step)))
        whole_run.observe(float(loss))
    resumed = loader(mixture=mixture)
    resumed.restore(state)
    for step in range(7, 12):
        assert as_bytes(resumed.batch(step)) == through[step]
        resumed.observe(float(losses[step]))
    assert as_bytes(loader(mixture=mixture).batch(11)) != through[11]        # without the state it is another mask


def test_a_fresh_mask_at_each_visit():
    tokens_only = loader(mixture=Mixture(parts=(Tokens(ratio=0.3),)))
    first, again = tokens_only.examples(0, 0, 0), tokens_only.examples(0, 1, 0)
    later = tokens_only.examples(0, 0, 9)
    assert not np.array_equal(first[0].weights, again[0].weights)
    assert not np.array_equal(first[0].weights, later[0].weights)


def test_room_is_surely_enough_or_what_does_not_fit_is_counted():
    assert not any("no_room" in key for step in range(20) for key in loader().batch(step).counts)
    tight = loader(reserve=0.0)
    counts = sum((tight.batch(step).counts for step in range(20)), start=type(tight.batch(0).counts)())
    assert counts["note/no_room"] > 0
    assert len(tight.packing) < len(loader().packing)    # that is what it is for
    for window in range(len(tight.packing)):
        for piece, example in zip(tight.packing.window(window), tight.examples(window, 0, 1), strict=True):
            assert np.array_equal(undo(example, MARKS),
                                  corpus()[tight.packing.starts[piece]:tight.packing.ends[piece]])


def test_longest_is_planned_with_the_schedule_s_worst():
    assert longest(EVERYTHING, 50) >= max(longest(Mixture(parts=(part,)), 50) for part in EVERYTHING.parts)
    assert longest(Mixture(parts=(Causal(), Spans(weight=0.0))), 50) == 49   # what is never drawn needs no room


def test_nothing_to_train_on():
    with pytest.raises(DataError, match="nothing to train on"):
        loader(tokens=np.array([1, 1, 1]))


def test_split_and_to_keep_everything():
    batch = loader().batch(0)
    parts = list(batch.split(3))
    assert [len(p) for p in parts] == [3, 3, 2]
    for name, tensor in batch.tensors().items():
        assert torch.equal(torch.cat([p.tensors()[name] for p in parts]), tensor)
    assert as_bytes(batch.to(torch.device("cpu"))) == as_bytes(batch)


# Who sees whom ----------------------------------------------------------------------------------------------------

def prefix(length, T):
    """The first `length` tokens see each other both ways, the rest is causal."""
    at = torch.arange(T)
    return Masked((at < length) | (at <= at[:, None]))


def test_attention_is_packed_or_prefix_attention():
    causal = loader(mixture=Mixture()).batch(0)
    assert torch.equal(causal.attend().mask, packed(causal.document).mask)
    both = loader(mixture=EVERYTHING).batch(0)
    mask = both.attend().mask
    assert torch.equal(within(both.document, both.two_way).mask(), mask)
    for row in range(8):
        for number in both.document[row].unique().tolist():
            places = (both.document[row] == number).nonzero().flatten()
            block = mask[row][places][:, places]
            length = both.two_way[row][places].sum()
            assert torch.equal(block, prefix(length, len(places)).mask)
            others = (both.document[row] != number).nonzero().flatten()
            assert not mask[row][places][:, others].any()


@pytest.fixture(scope="module")
def model():
    return untamed(LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64, vocab_size=400,
                               max_context=128))


def losses(model, batch, embedded):
    hidden = model.trunk(embedded, batch.positions, [batch.attend()] * 2)
    logits = model.logits(hidden).float()
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
    return each.view(batch.labels.shape)


def test_no_document_s_loss_reaches_another_s_embeddings(model):
    """The gradient is exactly zero, not merely small: masked weights are zeros before anything is multiplied."""
    batch = next(loader(batch_size=4).batch(0).split(4))
    for number in range(3):
        embedded = model.embed(batch.ids).detach().requires_grad_()
        mine = batch.document == number
        losses(model, batch, embedded)[mine].sum().backward()
        assert mine.any()
        assert embedded.grad[~mine].abs().max() == 0
        assert embedded.grad[mine].abs().max() > 0


def test_causal_attention_across_borders_would_leak(model):
    """The same test fails with plain causal attention, so it can fail."""
    batch = loader(batch_size=4, mixture=Mixture()).batch(0)
    embedded = model.embed(batch.ids).detach().requires_grad_()
    hidden = model.trunk(embedded, batch.positions)
    (hidden * (batch.document == 1)[..., None]).sum().backward()
    assert embedded.grad[batch.document == 0].abs().max() > 0


def test_a_packed_document_is_computed_as_if_it_stood_alone(model):
    """Float32 sums in another order: 1e-4 on losses of about 6."""
    batch = loader(batch_size=2).batch(0)
    together = losses(model, batch, model.embed(batch.ids))
    for row in range(2):
        for number in batch.document[row].unique().tolist():
            mine = batch.document[row] == number
            n = int(mine.sum())
            attend = prefix(batch.two_way[row][mine].sum(), n)
            hidden = model.trunk(model.embed(batch.ids[row][mine][None]), torch.arange(n), [attend] * 2)
            alone = torch.nn.functional.cross_entropy(model.logits(hidden)[0].float(), batch.labels[row][mine],
                                                      reduction="none")
            if number != PADDING:
                torch.testing.assert_close(alone, together[row][mine], atol=1e-4, rtol=1e-4)
