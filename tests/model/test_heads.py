"""Heads: padding changes nothing, both ways of attention and pooling are what they say, gradients reach the body."""

import pytest
import torch

from ayllu.model.attend import Causal
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.llama import Llama
from ayllu.model.transformer import Transformer

LLAMA = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, vocab_size=64)
ORIGINAL = TransformerConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=8, hidden_dim=48, vocab_size=64)


def body(kind, **changes):
    torch.manual_seed(0)
    return Llama(LLAMA.model_copy(update=changes)) if kind == "llama" else Transformer(ORIGINAL)


def padded(rows):
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    is_token = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, :len(row)], is_token[i, :len(row)] = torch.tensor(row), True
    return ids, is_token


@pytest.mark.parametrize("kind", ["llama", "original"])
@pytest.mark.parametrize("attention", ["both", "causal"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_changes_nothing(kind, attention, pooling):
    model = Classifier(body(kind), HeadConfig(n_outputs=3, pooling=pooling, attention=attention)).eval()
    rows = [[5, 6, 7, 8, 9], [10, 11]]
    together = model(*padded(rows))
    for i, row in enumerate(rows):                       # float32 sums of other lengths: no more than rounding
        assert torch.allclose(together[i], model(*padded([row]))[0], atol=2e-6)


def test_a_token_sees_what_follows_only_where_it_may():
    one, other = padded([[5, 6, 7]]), padded([[5, 6, 8]])
    for attention, is_same in (("causal", True), ("both", False)):
        model = Classifier(body("llama"), HeadConfig(kind="tokens", n_outputs=3, attention=attention)).eval()
        assert torch.equal(model(*one)[0, 0], model(*other)[0, 0]) is is_same


def test_a_window_bounds_both_sides():
    model = Classifier(body("llama", sliding_window=2, n_layers=1), HeadConfig(kind="tokens", n_outputs=2)).eval()
    base, near, far = (model(*padded([[5, 6, 7, last]]))[0] for last in (8, 8, 9))
    assert torch.equal(base, near)
    assert torch.equal(base[:2], far[:2])                # two places away is too far
    assert not torch.equal(base[2], far[2])


def test_last_and_mean_pool_what_they_say():
    ids, is_token = padded([[5, 6, 7], [8, 9]])
    for pooling in ("last", "mean"):
        model = Classifier(body("llama"), HeadConfig(n_outputs=3, pooling=pooling, attention="causal")).eval()
        h = model.hidden(ids, is_token)
        wanted = torch.stack([h[0, 2], h[1, 1]]) if pooling == "last" else torch.stack([h[0].mean(0), h[1, :2].mean(0)])
        assert torch.allclose(model(ids, is_token), model.score(wanted), atol=1e-6)


def test_an_output_layer_of_its_own_is_let_go_and_everything_left_learns():
    model = Classifier(body("llama"), HeadConfig(n_outputs=3))
    assert not any("output" in name for name, _ in model.named_parameters())
    model(*padded([[5, 6, 7]])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_causal_is_the_bodys_own_attention():
    model = Classifier(body("llama"), HeadConfig(n_outputs=2, attention="causal"))
    assert model.attends(torch.ones(1, 3, dtype=torch.bool)) == [Causal(), Causal()]
