"""kill -9 of one rank, in training and in saving: torchrun fails, and the resumed run ends as if undisturbed.

Bit for bit, because the ranks are as many as before: gloo adds in an order that follows their number.
"""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from flows.test_torchrun import environment, recipe_in
from safetensors.torch import load_file

KILLED = Path(__file__).with_name("killed_rank.py")
SHORT = ["model.n_kv_heads=2", "loop.steps=16", "loop.ema=0.9", "loop.eval_every=4", "optim.schedule.warmup_steps=2"]


def torchrun(folder, *words):
    command = ["torchrun", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment(folder))


def losses(folder):
    """Of each step, the last one that was logged: a resume begins again at its checkpoint."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "loss" in row}


def pointer(run):
    return (run / "checkpoints" / "latest").read_text(encoding="utf-8").strip()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["parallel.mode=fsdp", "parallel.mode=data"])
def test_a_killed_rank_changes_nothing(tmp_path, how):
    whole, cut = recipe_in(tmp_path, "whole"), recipe_in(tmp_path, "cut")
    start = ["pretrain", cut, how, *SHORT, "--resume", "auto"]
    done = torchrun(tmp_path, "-m", "ayllu", "pretrain", whole, how, *SHORT)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank, moment, step, kept in ((1, "saving", 10, 5), (0, "training", 8, 5), (1, "training", 13, 10)):
        done = torchrun(tmp_path, KILLED, rank, moment, step, *start)
        assert done.returncode != 0
        assert "Signal 9 (SIGKILL)" in done.stderr       # what torchrun says of the rank
        assert pointer(tmp_path / "cut") == f"step-{kept:08d}", moment
    done = torchrun(tmp_path, "-m", "ayllu", *start)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "at step 10 of 16" in done.stderr
    found, expected = losses(tmp_path / "cut"), losses(tmp_path / "whole")
    assert found == expected
    assert sorted(found) == list(range(1, 17))
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not list((tmp_path / "cut" / "checkpoints").glob(".*"))

