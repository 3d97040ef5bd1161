"""The head's sweep in C++ is its slow twin: losses and gradients, any shape, weights and upstream gradient."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ayllu.native import head
from ayllu.train.head_loss import EAGER, HeadLoss, Kernels

NATIVE = Kernels(native=True)


def numbers(n, width, ids, seed=0, scale=0.5):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=draw).bfloat16().requires_grad_()
    matrix = (torch.randn(ids, width, generator=draw) * scale).bfloat16().requires_grad_()
    labels, weights = torch.randint(0, ids, (n,), generator=draw), torch.rand(n, generator=draw)
    weights[::3] = 0                                     # places where nothing is learned
    return hidden, matrix, labels, weights


def outcome(hidden, matrix, labels, weights, kernels, z_loss=0.0, factor=1.0):
    total, each = HeadLoss(labels, weights, z_loss, kernels=kernels)(hidden, matrix)
    return each, *(g.float() for g in torch.autograd.grad(total * factor, (hidden, matrix)))


def exact(hidden, matrix, labels, weights, z_loss=0.0, factor=1.0):
    """In float64, by the definition, and how far rounding to bfloat16 may move each number.

    P is rounded and so is what multiplies it, and a gradient once more at the end: 2^-9 each of a sum of absolute
    values. Twice that is allowed.
    """
    x, w = (t.detach().double().requires_grad_() for t in (hidden, matrix))
    logits = x @ w.t()
    log_z = logits.logsumexp(-1)
    each = (log_z - logits.gather(1, labels[:, None])[:, 0] + z_loss * log_z.square()) * weights
    gradients = torch.autograd.grad(each.sum() * factor, (x, w), retain_graph=True)
    p = logits.softmax(-1) * (weights * (1 + 2 * z_loss * log_z.abs()) * abs(factor))[:, None]
    sums = p @ w.abs(), p.t() @ x.abs()
    return each.detach(), gradients, [(2 * s + 2 * g.abs()) / 256 + 1e-5 for s, g in zip(sums, gradients, strict=True)]


@given(n=st.integers(1, 700), half_width=st.integers(1, 40), ids=st.integers(2, 700), seed=st.integers(0, 99),
       z_loss=st.sampled_from([0.0, 0.01]), factor=st.sampled_from([1.0, -0.3]), threads=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_any_shape_gives_the_definition(n, half_width, ids, seed, z_loss, factor, threads):
    given_numbers = numbers(n, 2 * half_width, ids, seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        each, *found = outcome(*given_numbers, NATIVE, z_loss, factor)
    finally:
        torch.set_num_threads(before)
    expected, gradients, bounds = exact(*given_numbers, z_loss, factor)
    torch.testing.assert_close(each.double(), expected, rtol=1e-4, atol=1e-4)      # float32 sums of products
    for gradient, right, bound in zip(found, gradients, bounds, strict=True):
        assert ((gradient - right).abs() <= bound).all()


def test_a_label_far_below_0_loses_nothing_to_ids_that_do_not_exist():
    """Blocks are filled up to 64 ids, whose logits of 0 would count e^30 each beside the label's 1."""
    hidden, matrix = torch.full((3, 2), -15.0).bfloat16(), torch.ones(2, 2).bfloat16()
    each, *_ = head.head_loss(hidden, matrix, torch.tensor([0, 1, 0]), torch.ones(3), 0.0, 64, True, True)
    torch.testing.assert_close(each, torch.full((3,), 2.0).log())


def test_a_chunk_of_more_tokens_than_there_are_takes_no_memory():
    hidden, matrix, labels, weights = (t.detach() for t in numbers(40, 8, 3))
    given_numbers = hidden, matrix, labels, weights, 0.0
    found, expected = (head.head_loss(*given_numbers, chunk, True, True) for chunk in (1 << 40, 64))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_it_is_nearer_to_the_definition_than_its_twin():
    """The twin rounds the logits too."""
    given_numbers = numbers(600, 64, 900)
    _, right, _ = exact(*given_numbers)
    fast, slow = (outcome(*given_numbers, kernels)[1:] for kernels in (NATIVE, EAGER))
    for a, b, c in zip(fast, slow, right, strict=True):
        assert (a - c).norm() < (b - c).norm() < c.norm() / 100


def test_the_kernel_runs_and_its_twin_does_not(monkeypatch):
    calls = []
    whole = head.head_loss
    monkeypatch.setattr(head, "head_loss", lambda *rest: calls.append(len(rest)) or whole(*rest))
    outcome(*numbers(70, 32, 100), NATIVE)
    outcome(*numbers(70, 32, 100), EAGER)
    assert calls == [8]


def test_a_label_far_below_the_largest_logit_goes_to_the_twin():
    hidden, matrix = torch.full((3, 32), 2.0).bfloat16(), torch.zeros(5, 32).bfloat16()
    matrix[4] = 2.0                                      # logits 0, 0, 0, 0, 128
    labels, weights = torch.tensor([4, 0, 4]), torch.ones(3)
    assert head.head_loss(hidden, matrix, labels, weights, 0.0, 64, True, True) is None
    _, each = HeadLoss(labels, weights, kernels=NATIVE)(hidden, matrix)
    assert each.tolist() == [0, 128, 0]


def test_a_certain_token_keeps_its_small_gradient():
    """p - 1 is formed in float32, where bfloat16's numbers near 1 are 0.004 apart."""
    hidden, matrix = torch.zeros(1, 2).bfloat16(), torch.zeros(4, 2).bfloat16()
    hidden[0, 0], matrix[0, 0] = 1.0, 8.0
    _, by_hidden, _ = head.head_loss(hidden, matrix, torch.tensor([0]), torch.ones(1), 0.0, 64, True, False)
    p = torch.tensor([8.0, 0, 0, 0]).double().softmax(-1)[0].item()
    assert by_hidden[0, 0].item() == pytest.approx((p - 1) * 8, rel=1e-3)


def test_the_same_numbers_give_the_same_bits():
    given_numbers = numbers(300, 64, 500)
    for a, b in zip(outcome(*given_numbers, NATIVE), outcome(*given_numbers, NATIVE), strict=True):
        assert torch.equal(a, b)


def test_without_gradients_only_losses_come_back():
    hidden, matrix, labels, weights = numbers(70, 32, 100)
    fixed = hidden.detach(), matrix.detach(), labels, weights
    each, *gradients = head.head_loss(*fixed, 0.0, 64, False, False)
    assert gradients == [None, None]
    torch.testing.assert_close(each, outcome(hidden, matrix, labels, weights, NATIVE)[0])
