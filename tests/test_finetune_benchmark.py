"""benchmarks/finetune.py and its contest: settings that fail, whose memory bounds ours, and what needs a GPU."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = str(ROOT / "benchmarks")
sys.path.append(BENCHMARKS)
import contest  # noqa: E402
import lines  # noqa: E402
import peers  # noqa: E402

sys.path.remove(BENCHMARKS)

# answers as a worker does: a setting is "seconds of a step, bytes", or "fails", "sleeps"
WORKER = f"""
import sys, time
sys.path.insert(0, {BENCHMARKS!r})
from lines import serve
state = {{}}
def load(setting, **told):
    if setting == "fails":
        raise ValueError("out of memory")
    if setting == "sleeps":
        time.sleep(60)
    state["s"], state["bytes"] = map(float, setting.split())
    return {{"tokens": 100, "torch": "none"}}
serve({{"load": load, "run": lambda: {{"seconds": state["s"]}}, "peak": lambda: {{"peak_bytes": int(state["bytes"])}},
        "peak_flops": lambda: {{"flops_per_s": 1e12}}}})
"""
SHAPE = {"dim": 8, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 8, "hidden_dim": 8, "vocab_size": 8,
         "max_context": 8}


def measured(tmp_path, settings, **changes):
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    held = contest.Contest(dict.fromkeys(settings, str(script)), settings, {"cell": SHAPE}, {"cell": (1,)}, **changes)
    options = argparse.Namespace(quick=False, settings=[], rounds=2, threads=1, limit=20.0)
    return contest.measure(held, "cell", options, tmp_path / "log")


@pytest.mark.parametrize("alone", [frozenset(), frozenset({"cell"})])
def test_the_fastest_settings_meet_and_failures_are_told(tmp_path, alone):
    table = measured(tmp_path, {"ayllu": ("1 100", "0.5 400"), "peer": ("fails", "2 200", "1 300"), "lost": ("fails",)},
                     alone=alone)
    ours, peer = table.sides
    assert (ours.setting, peer.setting, peer.ratio, peer.memory_ratio) == ("0.5 400", "1 300", 2.0, 0.75)
    assert peer.tried == {"2 200, 1 rows": 50.0, "1 300, 1 rows": 100.0}
    assert "out of memory" in peer.failed["fails, 1 rows"]
    assert list(table.failed) == ["lost"]


@pytest.mark.parametrize(("peer", "chosen"), [("2 200", "1 100"), ("2 400", "0.5 400"), ("2 50", "0.5 400")])
def test_ours_takes_no_more_memory_than_the_peers_where_it_can(tmp_path, peer, chosen):
    table = measured(tmp_path, {"ayllu": ("1 100", "0.5 400"), "peer": (peer,)}, frugal=frozenset({"cell"}))
    assert table.sides[0].setting == chosen
    assert table.sides[0].peaks == {"1 100, 1 rows": 100, "0.5 400, 1 rows": 400}


def test_without_rounds_the_trials_count(tmp_path, monkeypatch):
    monkeypatch.setattr(contest._Party, "run", lambda *_: pytest.fail("a round"))
    held = contest.Contest({}, {}, {"cell": SHAPE}, {})
    party = contest._Party(held, "cell", "ayllu", argparse.Namespace(), tmp_path)
    party.trials["a"] = contest.Trial("a", "a", 1, 100, 7.0, 0.0, 1)
    assert contest._rounds({"ayllu": party}, 0) == {"ayllu": [7.0]}


def test_a_worker_that_takes_too_long_is_ended(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    worker = lines.Worker(sys.executable, tmp_path / "worker.py", 1, tmp_path / "log", 0.5)
    with pytest.raises(RuntimeError, match=r"load took more than 0\.5 s"):
        worker.ask("load", setting="sleeps")
    worker.close()
    assert worker.process.returncode is not None


def test_a_window_of_2048_places_holds_four_of_512():
    short, long = lines.conversations(8, 1000), lines.conversations(2, 1000, 2048)
    assert long == [[one for window in short[i:i + 4] for one in window] for i in (0, 4)]
    assert all(sum(len(ids) for ids, _ in window) <= 2048 for window in long)


def test_peers_that_are_here(monkeypatch):
    monkeypatch.setenv("AYLLU_PEERS", "here")
    assert peers.python_of("transformers") == sys.executable
    monkeypatch.setitem(peers.PACKAGES, "no_such_peer", ("no-such-peer>=1",))
    with pytest.raises(RuntimeError, match=r"has no no_such_peer: install no-such-peer>=1"):
        peers.python_of("no_such_peer")


def test_7b_needs_a_gpu():
    hidden = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "benchmarks/finetune.py", "--cells", "7b lora"], cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=100, env=hidden)
    assert done.returncode == 2
    assert "torch sees no CUDA device, and '7b lora' needs one of about 80 GB" in done.stderr
