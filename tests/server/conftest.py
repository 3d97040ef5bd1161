import pytest
from server.live import Live, serving


@pytest.fixture(scope="session")
def live(chat_checkpoint) -> Live:
    """A server of a tiny chat model, shared by all tests that don't change it."""
    with serving(chat_checkpoint, aliases=("other",)) as found:
        yield found
