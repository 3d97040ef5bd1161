"""Attention in C++ is its slow twin: values and gradients of any shape and any stretches of keys, no look ahead."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ayllu.model.attend import Causal, Within, within
from ayllu.native import attention


def numbers(rows, tokens, heads, width, seed=0, scale=1.0, group=1):
    draw = torch.Generator().manual_seed(seed)
    q, k, v, dy = [(torch.randn(rows, tokens, heads * n, width, generator=draw) * scale).bfloat16()
                   for n in (group, 1, 1, group)]
    return q, k, v, dy


def stretches(rows, tokens, kind, seed):
    """(first, end) of each token's keys: a document's, a window's, those of a prefix both ways, or what comes."""
    draw, place = torch.Generator().manual_seed(seed), torch.arange(tokens).expand(rows, -1)
    if kind == "any":
        first = (torch.rand(rows, tokens, generator=draw) * (place + 1)).long()
        end = place + 1 + (torch.rand(rows, tokens, generator=draw) * (tokens - place)).long()
        return first.int(), end.int()
    document = (torch.rand(rows, tokens, generator=draw) < 0.04).cumsum(1)
    two_way = (place < 9) & (kind == "prefix") & (document == document[:, :1])
    seen = within(document, two_way, 50 if kind == "window" else None)
    return seen.first, seen.end


def outcome(function, q, k, v, dy):
    q, k, v = (t.detach().clone().requires_grad_() for t in (q, k, v))
    y = function(q, k, v)
    return y.detach(), *torch.autograd.grad(y, (q, k, v), dy)


def twin(q, k, v, first=None, end=None):
    return Causal()(q, k, v) if first is None else Within(first, end)(q, k, v)


def distance(found, expected):
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-9)).item()


@given(rows=st.integers(1, 3), tokens=st.integers(1, 200), heads=st.integers(1, 3), group=st.integers(1, 3),
       half_width=st.integers(1, 40), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 1.0, 4.0]),
       threads=st.sampled_from([1, 2]), kind=st.sampled_from([None, "documents", "window", "prefix", "any"]))
@settings(max_examples=40, deadline=None, phases=[Phase.generate])
def test_any_shape_is_as_near_to_float64_as_torch(rows, tokens, heads, group, half_width, seed, scale, threads, kind):
    """Probabilities, their gradients and results are rounded to bfloat16 (2^-9 each), in the twin too.

    Where one token sees only itself, dq and dk are 0 by cancelling, so distances are of all gradients together.
    """
    given_numbers = numbers(rows, tokens, heads, 2 * half_width, seed, scale, group)
    seen = stretches(rows, tokens, kind, seed) if kind else (None, None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fast, slow = (outcome(lambda *qkv, how=how: how(*qkv, *seen), *given_numbers)
                      for how in (attention.attention, twin))
    finally:
        torch.set_num_threads(before)
    right = outcome(lambda *qkv: twin(*qkv, *seen), *(t.double() for t in given_numbers))
    together = [torch.cat([g.flatten() for g in part[1:]]) for part in (fast, slow, right)]
    for a, b, c in ((fast[0], slow[0], right[0]), together):
        assert distance(a, c) < 1.5 * distance(b, c) + 2e-3
        assert distance(a, c) < 0.03


def test_no_token_sees_what_comes_after():
    q, k, v, dy = numbers(1, 150, 2, 32)
    whole, cut = attention.attention(q, k, v), attention.attention(q[:, :70], k[:, :70], v[:, :70])
    torch.testing.assert_close(whole[:, :70], cut, rtol=0, atol=0)
    dy[:, :100] = 0                                      # only later tokens learn, so that earlier queries get nothing
    by_q = outcome(attention.attention, q, k, v, dy)[1]
    assert not by_q[:, :100].any()
    dy[:] = 0
    dy[:, 40] = 1
    assert not any(g[:, 41:].any() for g in outcome(attention.attention, q, k, v, dy)[1:])


def test_no_document_learns_from_another():
    """Exactly nothing, wherever the border lies, in a block of keys that both documents share too."""
    q, k, v, dy = numbers(1, 150, 2, 32)
    seen = within((torch.arange(150) >= 75)[None], torch.zeros(1, 150, dtype=torch.bool))
    dy[:, :75] = 0
    for gradient in outcome(lambda *qkv: attention.attention(*qkv, seen.first, seen.end), q, k, v, dy)[1:]:
        assert not gradient[:, :75].any()
        assert gradient[:, 75:].any()


def test_scores_far_apart_are_no_nan():
    q, k, v, dy = numbers(1, 130, 1, 64, scale=40.0)
    assert all(t.isfinite().all() for t in outcome(attention.attention, q, k, v, dy))


def test_the_same_numbers_give_the_same_bits():
    given_numbers = numbers(2, 100, 2, 48)
    for a, b in zip(*(outcome(attention.attention, *given_numbers) for _ in range(2)), strict=True):
        assert torch.equal(a, b)


def test_torch_agrees_that_it_is_an_operator():
    torch.library.opcheck(torch.ops.ayllu.attention.default, (*numbers(1, 20, 2, 8)[:3], None, None),
                          test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(("dtype", "kv_heads", "width"), [(torch.float32, 2, 8), (torch.bfloat16, 2, 9)])
def test_what_it_does_not_take(dtype, kv_heads, width):
    q, k = torch.zeros(1, 3, 2, width, dtype=dtype), torch.zeros(1, 3, kv_heads, width, dtype=dtype)
    assert not attention.fits(q, k)
