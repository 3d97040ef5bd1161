"""Losses are sums; bits per byte predicts each id once and knows the answer for a model that knows nothing."""

import math
from types import SimpleNamespace

import pytest
import torch

from ayllu.data.loader import Batch
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.losses import IGNORED, _sliding_windows, bits_of, bits_per_byte, next_token_loss

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50,
                     max_context=64)


@pytest.fixture
def model():
    model = build_model(CONFIG)
    initialise(model, 1, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10)                                   # far from uniform: mistakes show
    return model


def test_next_token_loss_is_the_sum_of_minus_log_p(model):
    ids = torch.randint(0, 50, (3, 9))
    labels = torch.randint(0, 50, (3, 9))
    labels[1, 4:] = IGNORED
    loss = next_token_loss(model, Batch(ids, labels))
    log_p = model(ids).log_softmax(-1)
    slow = [[-log_p[b, t, labels[b, t]].item() for t in range(9) if labels[b, t] != IGNORED] for b in range(3)]
    torch.testing.assert_close(loss.per_example, torch.tensor([sum(row) for row in slow]))
    torch.testing.assert_close(loss.total, loss.per_example.sum())
    assert loss.weight == 9 + 4 + 9


@pytest.mark.parametrize("length", [2, 3, 8, 9, 10, 13, 16, 17, 40, 41])
@pytest.mark.parametrize("context", [2, 7, 8])
def test_each_id_but_the_first_is_predicted_once_from_what_precedes_it(length, context):
    ids = torch.arange(1, length + 1)
    seen = []
    for batch in _sliding_windows(ids, context, rows=3):
        inputs, labels = batch.ids, batch.labels
        for row_in, row_label in zip(inputs, labels, strict=True):
            for place, label in zip(row_in.tolist(), row_label.tolist(), strict=True):
                if label != IGNORED:
                    assert label == place + 1            # ids count up: a label is its input plus one
                    seen.append(label)
    assert seen == list(range(2, length + 1))


def test_bits_per_byte_of_a_model_that_knows_nothing():
    model = build_model(CONFIG)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    bits = bits_per_byte(model, torch.randint(0, 50, (101,)), n_bytes=300, context=16, device=torch.device("cpu"))
    assert bits == pytest.approx(100 * math.log2(50) / 300, rel=1e-6)


def test_bits_per_byte_equals_one_long_window_when_it_fits(model):
    ids = torch.randint(0, 50, (30,))
    slow = -sum(model(ids[None, :t]).log_softmax(-1)[0, -1, ids[t]].item() for t in range(1, 30)) / math.log(2)
    assert bits_per_byte(model, ids, 10, 64, torch.device("cpu")) == pytest.approx(slow / 10, rel=1e-5)


@pytest.mark.parametrize(("z_loss", "smoothing"), [(0.01, 0.0), (0.0, 0.1), (0.02, 0.3)])
def test_z_loss_and_label_smoothing_are_what_their_papers_write(model, z_loss, smoothing):
    ids, labels = torch.randint(0, 50, (2, 6)), torch.randint(0, 50, (2, 6))
    labels[0, 2:] = IGNORED
    found = next_token_loss(model, Batch(ids, labels), z_loss, smoothing)
    slow = 0.0
    for row, targets in zip(model(ids).double(), labels, strict=True):
        for logits, label in zip(row, targets, strict=True):
            if label != IGNORED:
                log_z = math.log(sum(math.exp(v) for v in logits.tolist()))
                surprise = [log_z - v for v in logits.tolist()]
                slow += (1 - smoothing) * surprise[label] + smoothing * sum(surprise) / 50 + z_loss * log_z**2
    assert found.total.item() == pytest.approx(slow, rel=1e-5)
    assert found.weight == 2 + 6


@pytest.mark.parametrize(("ranks", "batches"), [(2, 7), (3, 7), (4, 3), (7, 7)])
def test_held_out_text_is_dealt_out_to_ranks_and_the_sum_is_the_same_bit_for_bit(model, ranks, batches):
    """Each rank runs equally often, as FSDP2 needs, and every batch counts once."""
    some = [Batch(ids, ids.roll(-1, 1)) for ids in torch.randint(0, 50, (batches, 2, 16))]
    alone = bits_of(model, some, torch.device("cpu"), None)
    found, runs = [], []
    for rank in range(ranks):
        calls = []
        hook = model.layers[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        layout = SimpleNamespace(data=ranks, data_rank=rank, sum=lambda part: found.append(part) or part)
        bits_of(model, some, torch.device("cpu"), None, layout)
        hook.remove()
        runs.append(len(calls))
    assert runs == [-(-batches // ranks)] * ranks
    everyone = SimpleNamespace(data=1, data_rank=0, sum=lambda part: sum(found))
    assert bits_of(model, some, torch.device("cpu"), None, everyone) == alone > 0
