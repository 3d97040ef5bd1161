"""Ranks that a command starts by itself get the words that were typed."""

import pytest

from ayllu.cli.main import run


def started(monkeypatch, *words):
    calls = []
    monkeypatch.setattr("ayllu.cli.serve.start_ranks", lambda n, found: calls.append((n, found)))
    assert run(["serve", *words]) == 0
    return calls


def test_the_ranks_get_what_was_typed(monkeypatch):
    monkeypatch.delenv("AYLLU_API_KEY", raising=False)
    typed = ["my model", "--alias", "a", "--alias=-b", "--max-wait", "2", "--redact", "-q", "--device", "cpu",
             "--tensor-parallel", "2", "--attention=torch"]
    assert started(monkeypatch, *typed) == [(2, [
        "serve", "my model", "--alias=a", "--alias=-b", "--redact", "--device=cpu", "--max-wait=2.0",
        "--attention=torch", "--quiet"])]


def test_what_is_wrong_for_all_ranks_is_said_once_and_before(monkeypatch, capsys):
    monkeypatch.setattr("ayllu.cli.serve.start_ranks", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("ayllu.device.pick_device", lambda name: __import__("torch").device("cuda"))
    assert run(["serve", "--tensor-parallel", "2"]) == 2
    assert "needs 2 GPUs, and this machine has 1" in capsys.readouterr().err
    assert run(["serve", "--tensor-parallel", "2", "--deterministic", "--attention", "triton"]) == 2
    assert "leave attention at auto" in capsys.readouterr().err


def test_a_rank_starts_no_others(monkeypatch):
    monkeypatch.setattr("ayllu.cli.serve.start_ranks", lambda *_: pytest.fail("started"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("ayllu.dist.processes", lambda device: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(["serve", "--tensor-parallel", "2", "--device", "cpu"]) == 130


def test_attention_and_graphs_reach_the_engine(monkeypatch):
    found = []

    def load(model, engine, here):
        found.append((engine["engine"].attention, engine["engine"].cuda_graphs))
        raise KeyboardInterrupt
    monkeypatch.setattr("ayllu.server.apart.load", load)
    for words in ([], ["--attention", "torch", "--cuda-graphs", "off"]):
        assert run(["serve", "--port", "0", *words]) == 130
    assert found == [("auto", "auto"), ("torch", "off")]
