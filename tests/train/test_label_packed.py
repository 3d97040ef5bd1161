"""Packed texts get the labels of the padded twin in float32, in bfloat16 and in float32."""

import copy

import pytest
import torch

from ayllu.data.label_loader import Texts
from ayllu.data.text_packs import batches
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama, LlamaConfig
from ayllu.train.heads_loss import logits_of
from ayllu.train.label_packed import Packed, why_not


def classifier(**head) -> Classifier:
    config = LlamaConfig(dim=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=128, vocab_size=200,
                         max_context=512, **({"sliding_window": 20} if head.pop("window", False) else {}))
    body = Llama(config)
    initialise(body, config.n_layers, 0)
    model = Classifier(body, HeadConfig(n_outputs=5, **head))
    torch.nn.init.normal_(model.score.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return model.eval()


HEADS = pytest.mark.parametrize("head", [
    {}, {"attention": "causal", "pooling": "last"}, {"pooling": "last"}, {"window": True},
    {"window": True, "attention": "causal"}, {"window": True, "pooling": "last"}, {"kind": "tokens"}])


def both_ways(head, rounds=True):
    """Logits of the packed and of the padded way."""
    random = torch.Generator().manual_seed(2)
    model = classifier(**head)
    ids = [torch.randint(200, (n,), generator=random).tolist() for n in (1, 2, 3, 17, 64, 65, 500, 17, 500, 300, 40)]
    marks = [[0 if i % 3 == 0 else -100 for i in range(len(row))] for row in ids]
    texts = Texts(ids, marks if model.head.kind == "tokens" else [0] * len(ids))
    slow = logits_of(copy.deepcopy(model), texts, 4, torch.device("cpu"))
    fast = Packed(model, rounds).logits(texts)
    assert [x.shape for x in fast] == [x.shape for x in slow]
    return torch.cat([x.flatten() for x in fast]), torch.cat([x.flatten() for x in slow])


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=pytest.mark.amx), False])
@HEADS
def test_packed_texts_are_as_the_padded_ones(head, kernel, monkeypatch):
    """bfloat16 keeps 8 bits of each number: logits are off by a few thousandths of their spread for each layer. On any
    CPU all but the kernel of attention, whose twin takes its place."""
    if not kernel:
        monkeypatch.setattr("ayllu.train.label_packed.missing", lambda: None)
        monkeypatch.setattr("ayllu.train.label_packed.fits", lambda q, k: True)
        monkeypatch.setattr("ayllu.native.attention.fits", lambda q, k: False)
    a, b = both_ways(head)
    assert (a - b).abs().max() < 0.08 * b.std()
    assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.9995


@HEADS
def test_in_float32_they_are_the_same(head):
    """The same sums in another order: float32 keeps 24 bits, and each layer may lose two or three."""
    a, b = both_ways(head, False)
    assert (a - b).abs().max() < 2e-5 * b.std()


@pytest.mark.parametrize("native", [True, False])
def test_any_cpu_packs_in_float32(native, monkeypatch):
    """Without AMX, and also where there is no compiler."""
    monkeypatch.setattr("ayllu.train.label_packed.missing", lambda: "this CPU has no AMX")
    if not native:
        monkeypatch.setattr("ayllu.engine.paths.missing_vectors", lambda: "there is no C++ compiler")
    assert why_not(classifier()) is None
    a, b = both_ways({})
    assert (a - b).abs().max() < 2e-5 * b.std()


def test_batches_hold_all_texts_in_order():
    found = list(batches([5, 5, 90, 200, 1, 99, 1], most=100))
    assert found == [[0, 1, 2], [3], [4, 5], [6]]


def test_what_cannot_be_packed_says_why():
    model = classifier()
    model.body.to("meta")
    assert why_not(model) is not None


def test_several_threads_say_the_same_and_leave_the_number_of_threads(monkeypatch):
    monkeypatch.setattr("ayllu.train.label_packed.FLOAT32_TOKENS", 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        a, b = both_ways({"pooling": "last"}, False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (a - b).abs().max() < 2e-5 * b.std()
