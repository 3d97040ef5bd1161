"""Texts packed in a row teach what the padded twin teaches: losses, gradients, hidden tokens, resumes."""

import pytest
import torch

from ayllu.data.label_loader import LabelLoader, Texts
from ayllu.data.text_packs import TOKENS, PackLoader, pack
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.init import initialise
from ayllu.train.heads_loss import label_loss
from ayllu.train.heads_packed import PackedLoss, apart, packed_logits, packed_loss, stretch

CPU = torch.device("cpu")
LENGTHS = (1, 2, 3, 17, 64, 65, 5, 40)
LABELS = {"single": lambda n: n % 5, "multi": lambda n: [float(n % k == 0) for k in range(1, 6)],
          "regression": lambda n: n / 10, "tokens": lambda n: [i % 5 if i % 3 == 0 else -100 for i in range(n)]}


def texts(kind="single"):
    random = torch.Generator().manual_seed(2)
    return Texts([torch.randint(200, (n,), generator=random).tolist() for n in LENGTHS], [*map(LABELS[kind], LENGTHS)])


def classifier(kind="single", window=None, original=False, **head):
    sizes = {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 128,
             "vocab_size": 200, "max_context": 512}
    config = TransformerConfig(**sizes, dropout=0.0) if original else LlamaConfig(**sizes, sliding_window=window)
    body = build_model(config)
    initialise(body, config.n_layers, 0)
    model = Classifier(body, HeadConfig(kind=kind, n_outputs=1 if kind == "regression" else 5, dropout=0.0, **head))
    torch.nn.init.normal_(model.score.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return model


def gradients(model, value):
    model.zero_grad()
    value.total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


CASES = [{}, {"attention": "causal", "pooling": "last"}, {"window": 20}, {"window": 20, "attention": "causal"},
         {"kind": "tokens"}, {"kind": "multi"}, {"kind": "regression"}, {"original": True}]


@pytest.mark.parametrize("native", [True, False], ids=["one mask", "apart"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_packed_texts_teach_what_padded_ones_do(case, native):
    """Both in float32 by torch's own operations, so that only the order of sums differs."""
    model, rows = classifier(**case), texts(case.get("kind", "single"))
    batch = rows.batch(range(len(rows)))
    slow, fast = label_loss(model, batch), packed_loss(model, model.body, pack(rows, range(len(rows))), native=native)
    assert fast.weight == slow.weight
    torch.testing.assert_close(fast.total, slow.total, rtol=1e-5, atol=1e-5)
    expected = gradients(model, slow)
    assert (gradients(model, fast) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.amx
@pytest.mark.parametrize("precision", ["autocast", "bf16_masters"])
@pytest.mark.parametrize("original", [False, True], ids=["llama", "original"])
def test_kernels_in_bfloat16_are_near_the_twin_in_float32(precision, original):
    """bfloat16 keeps 8 bits of each number: a gradient points the same way within a few percent of its length."""
    model, rows = classifier(original=original), texts()
    slow = label_loss(model, rows.batch(range(len(rows))))
    expected = gradients(model, slow)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
        fast = PackedLoss(packed_loss, precision)(model, pack(rows, range(len(rows))))
    torch.testing.assert_close(fast.total, slow.total, rtol=0.01, atol=0.0)
    assert (gradients(model, fast) - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("native", [True, False], ids=["one mask", "apart"])
def test_hidden_tokens_are_as_good_as_absent(native):
    """The twin masks them, here they are taken out; what is left keeps its place."""
    model, rows = classifier(window=20), texts()
    batch, whole = rows.batch(range(len(rows))), pack(rows, range(len(rows)))
    seen = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(3)) >= 0.5
    seen[:, 0] = True
    expected = model(batch.ids, batch.is_token & seen)
    some = whole.kept(seen[batch.is_token])
    torch.testing.assert_close(packed_logits(model, model.body, some, native), expected, rtol=1e-5, atol=1e-5)


def test_texts_apart_are_padded_by_less_than_half():
    """Eight texts of 1 to 65 tokens: 64 and 65 share a group, and so do no two that are further apart."""
    rows = texts()
    found = apart(pack(rows, range(len(rows))), None, True, 0.0)
    assert sum(group.mask.shape[:2].numel() for group in found.groups) == sum(LENGTHS)
    assert len(found.groups) == len(LENGTHS)
    near = Texts([[1] * n for n in (48, 64, 50, 63)], [0] * 4)
    assert [tuple(group.mask.shape) for group in apart(pack(near, range(4)), None, True, 0.0).groups] == [(4, 64, 64)]


def test_attention_that_forgets_does_so_only_in_training():
    model, rows = classifier(), texts()
    model.body.config = model.body.config.model_copy(update={"attention_dropout": 0.5})
    batch = pack(rows, range(len(rows)))
    learning = packed_logits(model, model.body, batch, native=False)
    model.eval()
    quiet = packed_logits(model, model.body, batch, native=False)
    torch.testing.assert_close(quiet, packed_logits(classifier(), classifier().body, batch))
    assert not torch.allclose(learning, quiet)


def test_each_token_sees_the_near_ones_of_its_text():
    """By hand: two texts, the first without its places 1 and 2."""
    batch = pack(Texts([[7] * 5, [7] * 3], [0, 1]), [0, 1]).kept(torch.tensor([1, 0, 0, 1, 1, 1, 1, 1]).bool())
    for window, both, expected in ((None, True, [(0, 3)] * 3 + [(3, 6)] * 3),
                                   (None, False, [(0, 1), (0, 2), (0, 3), (3, 4), (3, 5), (3, 6)]),
                                   (2, True, [(0, 1), (1, 3), (1, 3), (3, 5), (3, 6), (4, 6)]),
                                   (2, False, [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (4, 6)])):
        found = stretch(batch, window, both)
        assert [*zip(found.first[0].tolist(), found.end[0].tolist(), strict=True)] == expected


def test_packs_are_the_rows_of_a_step_and_hold_no_more_than_they_may():
    many = Texts([[1] * n for n in (TOKENS, 3, TOKENS - 2, 5, 1, 1, 1, 1)], list(range(8)))
    rows = LabelLoader(many, batch_size=8, seed=1)
    step = PackLoader(rows).batch(0)
    packs = list(step.split(3))
    assert len(step) == 8
    assert [n for p in packs for n in p.labels.tolist()] == rows.batch(0).labels.tolist()
    assert all(len(p.labels) <= 3 and (len(p.ids) <= TOKENS or len(p.labels) == 1) for p in packs)
    assert len(packs) < 8
