"""Memory on large pages, and room that is cut from it."""

import gc
import mmap
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.native.large import LINE, PAGE, PIECE, Ground, large_zeros


@pytest.mark.parametrize("n", [0, 5, PAGE // 4 - 1, PAGE // 4, 3 * PAGE // 4 + 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_zeros_are_torchs(n, dtype):
    found, want = large_zeros([2, n], dtype), torch.zeros(2, n, dtype=dtype)
    assert torch.equal(found, want)
    assert found.is_contiguous()
    assert found.dtype == dtype


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system gives no large pages")
def test_large_ones_begin_with_a_page():
    assert large_zeros([3 * PAGE], torch.uint8).data_ptr() % PAGE == 0
    assert large_zeros([1000, 1001], torch.float32).data_ptr() % PAGE == 0


def test_without_such_pages_memory_is_torchs(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert torch.equal(large_zeros([2 * PAGE], torch.uint8), torch.zeros(2 * PAGE, dtype=torch.uint8))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), min_size=1, max_size=30))
def test_rooms_hold_what_is_put_into_them(shapes):
    """None lies in another, and each begins with a line of the cache."""
    ground = Ground()
    rooms = [ground.room(shape, torch.bfloat16).fill_(i) for i, shape in enumerate(shapes)]
    for i, (room, shape) in enumerate(zip(rooms, shapes, strict=True)):
        assert room.shape == shape
        assert bool((room == i).all())
        assert not room.numel() or room.data_ptr() % LINE == 0


def test_what_is_larger_than_half_a_piece_gets_its_own():
    ground = Ground()
    small = ground.room([64], torch.uint8)
    large, more = ground.room([PIECE], torch.uint8), ground.room([64], torch.uint8)
    assert more.data_ptr() == small.data_ptr() + 64
    assert large.untyped_storage().data_ptr() != small.untyped_storage().data_ptr()


def test_threads_get_rooms_of_their_own():
    ground, rooms = Ground(), []

    def run(number):
        for _ in range(200):
            rooms.append((number, ground.room([100, 50], torch.int32).fill_(number)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(bool((room == number).all()) for number, room in rooms)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system gives no large pages")
def test_memory_is_free_once_nothing_lies_in_it(monkeypatch):
    made, take = [], mmap.mmap

    def noted(*arguments, **options):
        memory = take(*arguments, **options)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(mmap, "mmap", noted)
    part = large_zeros([4 * PAGE], torch.uint8)[100:200]
    gc.collect()
    assert made[0]() is not None
    assert not part.any()
    del part
    gc.collect()
    assert made[0]() is None
