"""Memory of large tensors: nothing overlaps, what is freed is found again, and little lies idle."""

import os
import subprocess
import sys

import pytest

from ayllu.native.build import missing_vectors

pytestmark = pytest.mark.skipif(missing_vectors() is not None, reason=str(missing_vectors()))

BEGIN = """
import random, resource, threading, torch
from ayllu.native.pool import pool_memory
pool_memory()
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
"""


def run(program):
    """In a process of its own, since torch's allocator is everybody's."""
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_two_tensors_overlap_in_any_order_of_taking_and_freeing():
    run("""
def work(seed):
    draw, held = random.Random(seed), []
    for n in range(1500):
        if len(held) > draw.randrange(1, 30):
            tensor, number = held.pop(draw.randrange(len(held)))
            assert bool((tensor == number).all())
        size = draw.choice((0, 1, 16_383, 16_384, 20_000, 100_000, draw.randrange(1, 400_000)))
        held.append((torch.full((size,), float(n)), n))
        assert held[-1][0].data_ptr() % 64 == 0
        if n % 50 == 0:
            tensor, number = held[-1]
            tensor.resize_(2 * size + 1)
            assert bool((tensor[:size] == number).all())
            held.pop()
    assert all(bool((tensor == number).all()) for tensor, number in held)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
failed = []
threading.excepthook = lambda told: failed.append(told)
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
""")


def test_what_is_freed_is_found_again_without_a_fault():
    before, after = map(int, run("""
for n in range(4):
    if n == 1: print(usage().ru_minflt)
    torch.empty(40 << 20, dtype=torch.uint8).fill_(1)
    parts = [torch.empty(10 << 20, dtype=torch.uint8).fill_(1) for _ in range(3)]
print(usage().ru_minflt)
"""))
    assert after - before < 500                          # 40 MB on small pages are 10,000


def test_steps_of_changing_sizes_leave_little_idle():
    """Beside malloc's a third: small things are taken between large ones, and stay."""
    most, taken = map(float, run("""
draw, small, most, start = random.Random(0), [], 0, usage().ru_maxrss * 1024
for step in range(8):
    kept, rows = [], draw.randrange(400, 513)
    for layer in range(12):
        for width in (768, 768, 2048, 2048, 768):
            kept.append(torch.ones(rows, width))
            small.append(bytearray(600))
            torch.ones(rows, 2048)
    most = max(most, sum(tensor.nbytes for tensor in kept) + rows * 2048 * 4)
print(most, usage().ru_maxrss * 1024 - start)
"""))
    assert taken < 1.1 * most + 10e6


def test_a_child_of_fork_takes_memory():
    assert run("""
import os
torch.empty(100_000)         # torch makes an operator ready at its first call, behind a lock that no child gets back
stop = threading.Event()
def busy():
    while not stop.is_set(): torch.empty(100_000)
thread = threading.Thread(target=busy)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        torch.empty(100_000)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set(); thread.join(); print("fine")
""") == ["fine"]
