"""Products by tiles and vectors, and the threads that share them."""

import threading

import pytest
import torch
import torch.nn.functional as F
from step_kinds import step_kind  # noqa: F401 - a fixture

from ayllu.native import step
from ayllu.native.step import side_by_side

ROWS = [1, 7, 16, 17, 32, 33, 64, 100]


def product(x, weight, bias=None, more=None, threads=1):
    """x (N, K) by weight (O, K), in the kernel."""
    return step.Packed(weight, bias)(F.pad(x, (0, 0, 0, -len(x) % 32))[:len(x)], more, threads)


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize(("K", "O"), [(32, 1), (32, 64), (96, 48), (64, 130), (288, 320)])
def test_products_are_torchs(K, O):                      # noqa: E741 - the legend's letters
    """Within the last rounding, which sums in another order may turn the other way: 2^-8 of the result, and of sums
    that cancel 2^-22 of what they are formed of."""
    weight, bias = numbers(O, K), numbers(O)
    for n in ROWS:
        x = numbers(n, K)
        for some in (None, bias):
            want = F.linear(x.double(), weight.double(), None if some is None else some.double())
            assert torch.allclose(product(x, weight, some).double(), want, rtol=2**-8, atol=1e-4)
            more = numbers(n, O)
            assert torch.allclose(product(x, weight, some, more).double(), want + more.double(), rtol=2**-8, atol=1e-4)
    assert torch.equal(step.Packed(weight).unpacked(), weight)


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("threads", [1, 4])
def test_a_rows_bits_depend_on_it_alone(threads):
    x, weight = numbers(100, 288), numbers(1000, 288)
    alone = torch.cat([product(row[None], weight) for row in x])
    for n in ROWS:
        assert torch.equal(product(x[:n], weight, threads=threads), alone[:n])


def test_callers_at_the_same_time_get_their_own():
    """Only one has the helpers; a caller that finds them busy works alone."""
    weight, xs, found = numbers(5000, 64), [numbers(n, 64) for n in range(1, 5)], {}

    def run(i):
        found[i] = [product(xs[i], weight, threads=3) for _ in range(30)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(xs):
        want = product(x, weight)
        assert all(torch.equal(one, want) for one in found[i])


def test_gates_stand_beside_what_they_gate():
    w13 = torch.arange(2 * 96)[:, None]
    found = side_by_side(w13)[:, 0].tolist()
    assert found[:64] == [*range(32), *range(96, 128)]
    assert sorted(found) == list(range(192))
