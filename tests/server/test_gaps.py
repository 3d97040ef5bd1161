"""Our histogram of the times between tokens against the library's own, its slow twin."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from ayllu.server.metrics import STEP_SECONDS, Gaps


@given(st.lists(st.floats(0, 5) | st.sampled_from(STEP_SECONDS), max_size=30))
def test_prometheus_reads_the_same(seconds):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = Gaps()
    ours.register(fast)
    plain = Histogram("ayllu_between_tokens_seconds", "Between two tokens of one call.", buckets=STEP_SECONDS,
                      registry=theirs)
    for value in seconds:
        fast.observe(value)
        plain.observe(value)
    lines = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == lines
