"""Every way to attend against one naive loop that is told which keys each token sees."""

import math

import pytest
import torch

from ayllu.model.attend import (
    Apart,
    Causal,
    Masked,
    Within,
    apart,
    packed,
    padded,
    repeated,
    window_mask,
    within,
)

B, T, H, K, E = 2, 11, 6, 2, 5


def qkv(n_kv_heads=K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, T, heads, E, generator=generator) * 2 for heads in (H, n_kv_heads, n_kv_heads)]


def naive(q, k, v, sees):
    """softmax(q·k / sqrt(E)) v, token by token; sees(b, i, j) says whether token i of row b may look at token j."""
    out = torch.zeros_like(q)
    for b in range(B):
        for i in range(T):
            keys = [j for j in range(T) if sees(b, i, j)]
            for h in range(H):
                g = h // (H // k.shape[2])
                scores = [sum((q[b, i, h] * k[b, j, g]).tolist()) / math.sqrt(E) for j in keys]
                total = sum(math.exp(s - max(scores)) for s in scores)
                for j, score in zip(keys, scores, strict=True):
                    out[b, i, h] += math.exp(score - max(scores)) / total * v[b, j, g]
    return out


def assert_sees(attend, sees, n_kv_heads=K):
    q, k, v = qkv(n_kv_heads)
    torch.testing.assert_close(attend(q, k, v), naive(q, k, v, sees), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3, 6])
def test_causal(n_kv_heads):
    assert_sees(Causal(), lambda b, i, j: j <= i, n_kv_heads)


@pytest.mark.parametrize("window", [1, 2, 4, T - 1, T, 50])
def test_window(window):
    """The window counts the token itself: 1 sees nothing but itself."""
    assert_sees(Causal(window), lambda b, i, j: i - window < j <= i)


@pytest.mark.parametrize("n_kv_heads", [1, 6])
def test_masked_by_one_mask_and_by_one_for_each_row(n_kv_heads):
    mask = torch.rand(B, T, T, generator=torch.Generator().manual_seed(1)) < 0.4
    mask |= torch.eye(T, dtype=torch.bool)
    assert_sees(Masked(mask), lambda b, i, j: mask[b, i, j], n_kv_heads)
    assert_sees(Masked(mask[0]), lambda b, i, j: mask[0, i, j], n_kv_heads)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_repeated_heads_are_those_of_the_groups(n_kv_heads):
    mask = torch.rand(B, T, T, generator=torch.Generator().manual_seed(1)) < 0.4
    mask |= torch.eye(T, dtype=torch.bool)
    q, k, v = qkv(n_kv_heads)
    torch.testing.assert_close(Masked(mask)(q, *repeated(k, v, H)), Masked(mask)(q, k, v))


@pytest.mark.parametrize("window", [None, 3])
def test_packed_documents(window):
    document = torch.tensor([[0] * 4 + [1] * 7, [5] * 2 + [3] * 6 + [9] * 3])
    assert_sees(packed(document, window), lambda b, i, j: j <= i and i - j < (window or T)
                and document[b, i] == document[b, j])


def test_stretches_of_keys():
    first = torch.tensor([[0, 0, 1, 3, 3, 5, 5, 0, 8, 8, 10], [0] * 11], dtype=torch.int32)
    end = torch.tensor([[1, 4, 4, 4, 8, 8, 8, 8, 11, 11, 11], list(range(1, 12))], dtype=torch.int32)
    assert_sees(Within(first, end), lambda b, i, j: first[b, i] <= j < end[b, i])


@pytest.mark.parametrize("window", [None, 3, T])
def test_documents_as_stretches_are_documents_as_masks(window):
    document = torch.tensor([[0] * 4 + [1] * 7, [5] * 2 + [3] * 6 + [-1] * 3])
    nobody = torch.zeros(B, T, dtype=torch.bool)
    assert torch.equal(within(document, nobody, window).mask(), packed(document, window).mask)


def test_a_prefix_and_a_window_may_leave_a_gap():
    some = torch.zeros(1, T, dtype=torch.bool)
    some[0, :2] = True
    assert within(torch.zeros(1, T), some, 3) is None
    assert within(torch.zeros(1, T), some, T).end.tolist() == [[2, *range(2, T + 1)]]


def test_a_document_number_that_comes_again_is_the_same_document():
    document = torch.tensor([[0, 0, 1, 1, 0, 0, 0, 2, 2, 2, 2]] * 2)
    assert_sees(packed(document), lambda b, i, j: j <= i and document[b, i] == document[b, j])


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padded(side, window):
    """Padding is never seen by a token, and is itself finite: it sees itself."""
    is_token = torch.ones(B, T, dtype=torch.bool)
    if side != "right":
        is_token[0, :3] = False
    if side != "left":
        is_token[1, 8:] = False
    attend = padded(is_token, window)
    q, k, v = qkv()
    expected = naive(q, k, v, lambda b, i, j: j == i or (j < i and i - j < (window or T) and is_token[b, j]))
    torch.testing.assert_close(attend(q, k, v), expected, atol=2e-6, rtol=1e-5)
    changed = [torch.where(is_token[..., None, None], x, torch.full_like(x, 1e4)) for x in (q, k, v)]
    assert torch.equal(attend(*changed)[is_token], attend(q, k, v)[is_token])


def test_window_mask_is_a_band():
    assert window_mask(4, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("attend", [
    Causal(dropout=0.5), Causal(3, dropout=0.5), packed(torch.zeros(B, T), dropout=0.5),
    padded(torch.ones(B, T, dtype=torch.bool), dropout=0.5)])
def test_dropout_falls_on_weights(attend):
    """A weight is dropped or doubled: over many draws the mean stays; with values of 1 the sum of a row tells."""
    q, k, _ = qkv()
    ones = torch.ones(B, T, K, E)
    torch.manual_seed(0)
    draws = torch.stack([attend(q, k, ones) for _ in range(400)])
    assert draws.std() > 0.1
    torch.testing.assert_close(draws.mean(0), torch.ones(B, T, H, E), atol=0.3, rtol=0)


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("seed", range(4))
def test_documents_apart_are_documents_behind_a_mask(heads, seed):
    """Also where a row begins with the number that the row before ended with; gradients, too."""
    draw = torch.Generator().manual_seed(seed)
    document = (torch.rand(3, 40, generator=draw) < 0.06).cumsum(1) % 2
    q = torch.randn(3, 40, 4, 8, generator=draw, requires_grad=True)
    k, v = (torch.randn(3, 40, heads, 8, generator=draw, requires_grad=True) for _ in range(2))
    way = torch.randn(3, 40, 4, 8, generator=draw)
    numbers = (document[:, 1:] != document[:, :-1]).cumsum(1)                # each one once in its row, for the twin
    twin = packed(torch.cat((torch.zeros(3, 1, dtype=torch.long), numbers), 1))
    found = apart(document, torch.zeros(3, 40, dtype=torch.bool))
    assert sum(found.lengths) == 120
    y, slow = found(q, k, v), twin(q, k, v)
    torch.testing.assert_close(y, slow)
    for a, b in zip(*(torch.autograd.grad((t * way).sum(), (q, k, v)) for t in (y, slow)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [True, False])
def test_last_tokens_apart_see_what_they_do_among_all(causal):
    """Documents of one length are one call, and where each one's last token asks alone, it gets the same."""
    q, k, v = qkv()
    lengths = (3, 2, 2, 4) * B
    begin = [0, 0, 0, 3, 3, 5, 5, 7, 7, 7, 7]
    found = Apart(lengths, causal)(q, k, v)
    expected = naive(q, k, v, lambda b, i, j: begin[i] == begin[j] and (j <= i or not causal))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    last = Apart(lengths, causal, of_last=True)(q, k, v)
    torch.testing.assert_close(last, found[:, [2, 4, 6, 10]].flatten(0, 1)[None], atol=2e-6, rtol=1e-5)


def test_documents_that_see_more_or_less_than_what_came_before_are_not_taken_apart():
    document = torch.arange(40).view(1, 40) // 16
    nobody = torch.zeros(1, 40, dtype=torch.bool)
    some = nobody.clone()
    some[0, 3] = True
    assert apart(document, nobody).lengths == apart(document, nobody, 16).lengths == (16, 16, 8)
    assert apart(document, nobody, 15) is None
    assert apart(document, some) is None
    assert apart(torch.arange(40).view(1, 40) // 2, nobody) is None          # too short to be worth a call each
