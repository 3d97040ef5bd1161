"""A server that ends doesn't wait for ever, and whoever still waits is told, without a trace in the log."""

import logging
import threading
import time

import httpx
from server.live import answering

from ayllu.server import frontdesk, start
from ayllu.server.start import load_served
from ayllu.server.workspace import Workspace


def test_what_takes_longer_than_the_end_is_told_so(chat_checkpoint, tmp_path, monkeypatch, caplog):
    """A collection of a shop with many pages takes minutes to build: here two seconds, and the server waits for one."""
    begun = threading.Event()

    def slow(*_):
        begun.set()
        time.sleep(2)
        raise OSError("never asked for")

    monkeypatch.setattr(frontdesk, "open_support", slow)
    monkeypatch.setattr(start, "DRAIN_S", 1.0)
    served, answers = load_served(str(chat_checkpoint), workspace=Workspace(tmp_path / "data")), []
    with caplog.at_level(logging.INFO, "uvicorn.error"), answering(served) as live:
        waiting = threading.Thread(target=lambda: answers.append(httpx.get(f"{live.url}/v1/support", timeout=30)))
        waiting.start()
        assert begun.wait(10)
    waiting.join(10)
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(503, "stopping")]
    assert not [record for record in caplog.records if record.exc_info]
