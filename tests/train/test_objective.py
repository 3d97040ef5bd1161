"""The loss of packed batches equals the plain loss of each document alone, and trains through the one loop's terms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from untamed import untamed

from ayllu.data.loader import Batch
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Causal, FillIn, Mixture, Prefix, Spans, Tokens
from ayllu.data.pack_loader import PackedLoader
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.train.losses import next_token_loss
from ayllu.train.objective import attends, masked_loss

MARKS = Marks(vocab_size=200, bos=1, eos=2, pad=3, mask=4, fim=(5, 6, 7, 8), sentinels=tuple(range(10, 110)),
              special=frozenset(range(110)))
ALL = Mixture(parts=(Causal(), Prefix(), FillIn(), Spans(attention="prefix"), Tokens()))


def loader(mixture, **changes):
    draw = np.random.default_rng(0)
    tokens = np.concatenate([[1, *draw.integers(110, 200, draw.integers(3, 40)), 2] for _ in range(60)])
    return PackedLoader(**{"tokens": tokens.astype("<u2"), "marks": MARKS, "context": 64, "batch_size": 6,
                           "mixture": mixture} | changes)


def model(kind="llama", **changes):
    config = LlamaConfig(**{"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 64,
                            "vocab_size": 200, "max_context": 128} | changes)
    if kind == "transformer":
        config = TransformerConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=8, hidden_dim=64,
                                   vocab_size=200, max_context=128)
    return untamed(config).eval()


@pytest.mark.parametrize("kind", ["llama", "transformer"])
@pytest.mark.parametrize("extra", [{}, {"z_loss": 1e-2, "label_smoothing": 0.1}])
def test_causal_documents_cost_what_they_cost_alone(kind, extra):
    """Float32 sums in another order: 1e-4 of the whole."""
    network, batch = model(kind), loader(Mixture()).batch(0)
    packed, alone = masked_loss(network, batch, **extra), []
    for row in range(len(batch)):
        for number in range(int(batch.document[row].max()) + 1):
            here = batch.document[row] == number
            alone.append(next_token_loss(network, Batch(batch.ids[row][here][None], batch.labels[row][here][None]),
                                         **extra))
    assert packed.weight.item() == sum(part.weight.item() for part in alone)
    torch.testing.assert_close(packed.total, torch.stack([part.total for part in alone]).sum(), rtol=1e-4, atol=0)


def test_micro_batches_add_up():
    network, batch = model(), loader(ALL).batch(1)
    whole, parts = masked_loss(network, batch), [masked_loss(network, part) for part in batch.split(2)]
    torch.testing.assert_close(torch.cat([p.per_example for p in parts]), whole.per_example, rtol=1e-5, atol=1e-5)
    assert sum(p.weight for p in parts) == whole.weight == whole.weight.round() == (batch.labels != -100).sum()


def test_weights_weigh():
    network, batch = model(), loader(ALL).batch(0)
    half = masked_loss(network, replace(batch, weights=batch.weights / 2))
    whole = masked_loss(network, batch)
    torch.testing.assert_close(half.total * 2, whole.total)
    assert half.weight * 2 == whole.weight


def test_layers_keep_their_windows():
    network, batch = model(sliding_window=8, first_sliding_layer=1), loader(Mixture()).batch(0)
    distance = (torch.arange(64)[:, None] - torch.arange(64)[None, :])[None].expand(len(batch), -1, -1)
    farthest = [int(distance[view.mask].max()) for view in attends(network, batch)]
    assert farthest[0] > 8
    assert farthest[1] == 7


@pytest.mark.parametrize("network", [model(), model("transformer"), model(sliding_window=8, first_sliding_layer=1)],
                         ids=["llama", "transformer", "windows"])
def test_no_document_s_loss_reaches_another_s_embeddings(network):
    """Through the attention that training uses; the gradient is exactly zero, not merely small."""
    batch = loader(ALL, batch_size=2).batch(0)
    for number in (0, 1):
        mine = batch.document == number
        embedded = network.embed(batch.ids).detach().requires_grad_()
        hidden = network.trunk(embedded, batch.positions, attends(network, batch))
        logits = network.logits(hidden).float()
        torch.nn.functional.cross_entropy(logits[mine], batch.labels[mine]).backward()
        assert embedded.grad[~mine].abs().max() == 0
        assert embedded.grad[mine].abs().max() > 0


@pytest.mark.parametrize("predicts", ["same", "next"])
def test_a_masked_id_can_not_be_read_from_the_inputs(predicts):
    """Change what stands behind the masks: inputs stay, and so does every logit; only labels move."""
    part = Tokens(ratio=0.4, masked=1.0, random=0.0, predicts=predicts)
    before = loader(Mixture(parts=(part,)))
    first = before.batch(0)
    hidden = set()                                       # places in the corpus that the first step hides
    for window, epoch in before.windows(0):
        for piece, example in zip(before.packing.window(window), before.examples(window, epoch, 0), strict=True):
            ahead = 0 if predicts == "same" else 1
            hidden |= {int(before.packing.starts[piece]) + i + ahead for i in np.flatnonzero(example.weights)}
    tokens = before.tokens.copy()
    tokens[sorted(hidden)] = 110 + (tokens[sorted(hidden)] - 110 + 1) % 90   # another ordinary id at each
    second = loader(Mixture(parts=(part,)), tokens=tokens).batch(0)
    assert torch.equal(first.ids, second.ids)
    learned = first.labels != -100
    assert (first.labels[learned] != second.labels[learned]).all()
    network = model()
    logits = [network.logits(network.trunk(network.embed(b.ids), b.positions, attends(network, b)))
              for b in (first, second)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("part", ALL.parts, ids=lambda part: part.kind)
def test_every_objective_can_be_learned(part):
    """At most 60 steps on one batch bring its loss down by half."""
    network = Llama(LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64, vocab_size=200,
                                max_context=128))
    initialise(network, 2, seed=0)
    batch = loader(Mixture(parts=(part,)), batch_size=2).batch(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = masked_loss(network, batch)
        (loss.total / loss.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((loss.total / loss.weight).item())
        if losses[-1] < losses[0] / 2:
            return
    raise AssertionError(f"still {losses[-1]:.2f} of {losses[0]:.2f} after 60 steps")
