"""A run that was stopped, killed, damaged or is to be repeated: it goes on, or says clearly why not."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from flows.tiny import losses, packed, same_weights, started, wait_until
from forked import ayllu

from ayllu.errors import ConfigError


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.15, 0.4])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, delay_s):
    whole = ayllu("pretrain", recipe("whole"))
    assert whole.returncode == 0, whole.stderr
    process = started("pretrain", recipe("cut"))
    latest = tmp_path / "cut" / "checkpoints" / "latest"
    wait_until(latest.exists, process)
    time.sleep(delay_s)
    process.kill()                                       # -9: no goodbye
    process.communicate()
    resumed = ayllu("pretrain", recipe("cut"), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_killed_packed_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, delay_s):
    assert ayllu("pretrain", packed(recipe, "whole")).returncode == 0
    path = packed(recipe, "cut")
    process = started("pretrain", path)
    wait_until((tmp_path / "cut" / "checkpoints" / "latest").exists, process)
    time.sleep(delay_s)
    process.kill()
    process.communicate()
    resumed = ayllu("pretrain", path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(recipe, tmp_path):
    process = started("pretrain", recipe("run"), "loop.steps=5000")
    wait_until((tmp_path / "run" / "checkpoints" / "latest").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    stopped = int(re.search(r"stopped after step (\d+)", stderr).group(1))
    assert "--resume" in stderr
    assert (tmp_path / "run" / "checkpoints" / f"step-{stopped:08d}" / ".metadata").exists()


def test_a_run_is_never_overwritten(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")
    done = ayllu("pretrain", recipe("run"))
    assert done.returncode == 2
    assert "add --resume to go on with it" in done.stderr


def test_resume_auto_begins_goes_on_and_gets_over_damage(recipe, tmp_path):
    path, run = recipe("run"), tmp_path / "run"
    done = ayllu("pretrain", path, "loop.steps=12", "--resume", "auto")           # nothing there yet
    assert done.returncode == 0, done.stderr
    metrics = run / "metrics.jsonl"
    before = [row for row in metrics.read_text(encoding="utf-8").splitlines() if '"final"' not in row]
    newest = (run / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
    part = next((run / "checkpoints" / newest).glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:-1])
    shard = next((tmp_path / "cache").rglob("train.bin"))
    shard.write_bytes(bytes(shard.stat().st_size))                                # the same size, all zeros
    refused = ayllu("pretrain", path, "loop.steps=12", "--resume")
    assert refused.returncode == 2
    assert "the bytes have changed since they were written" in refused.stderr
    with open(metrics, "a", encoding="utf-8") as file:
        file.write('{"step": 12, "lo')                                            # a row that was being written
    done = ayllu("pretrain", path, "loop.steps=12", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert f"{newest} is damaged" in done.stderr
    assert "resuming" in done.stderr
    assert "step 10 of 12" in done.stderr
    after = [row for row in metrics.read_text(encoding="utf-8").splitlines() if '"final"' not in row]
    assert [timeless(row) for row in after] == [timeless(row) for row in before]
    refused = ayllu("pretrain", path, "auto")
    assert "override 'auto' should read key=value" in refused.stderr


def test_a_full_disk_is_told_and_nothing_is_lost(recipe, tmp_path):
    """No file may grow past 200 kB: metrics fit, checkpoints of that model don't."""
    path, run = recipe("run"), tmp_path / "run"
    assert ayllu("pretrain", path, "loop.steps=5").returncode == 0
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "limited", sys.executable, "-m", "ayllu"]
    done = subprocess.run([*limited, "pretrain", str(path), "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert re.search(r"(best|step)-00000010 could not be written: .*File too large.*step-00000005 is untouched, and "
                     r"--resume auto goes on from it; if the disk is full, make room first", done.stderr)
    assert not list((run / "checkpoints").glob(".*"))
    done = ayllu("pretrain", path, "loop.steps=12", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert "at step 5 of 12" in done.stderr


def test_two_processes_never_train_in_one_folder(recipe, tmp_path, monkeypatch):
    from ayllu.train import run_folder
    monkeypatch.setattr(run_folder, "PATIENCE_S", 0.1)
    with run_folder.claimed(tmp_path / "run", resume=False), \
            pytest.raises(ConfigError, match="another process is training in"), \
            run_folder.claimed(tmp_path / "run", resume="auto"):
        pass
    with run_folder.claimed(tmp_path / "run", resume="auto"):
        pass


@pytest.mark.slow
def test_a_cooldown_by_hand_goes_on_from_a_checkpoint_in_a_run_of_its_own(recipe, tmp_path):
    path, rate = recipe("run"), {"schedule": "optim.schedule.kind=constant", "warmup": "optim.schedule.warmup_steps=3"}
    assert ayllu("pretrain", path, *rate.values()).returncode == 0
    before = losses(tmp_path / "run")
    chosen = tmp_path / "run" / "checkpoints" / "step-00000025"
    done = ayllu("pretrain", path, *rate.values(), "--cooldown", "8", "--checkpoint", chosen)
    assert done.returncode == 0, done.stderr
    cooled = tmp_path / "run-cooldown-25"
    rows = [json.loads(line) for line in (cooled / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [r["lr"] for r in rows if "lr" in r]
    assert [r["step"] for r in rows if "lr" in r] == list(range(26, 34))
    assert rates[0] == pytest.approx(1e-3)               # where the schedule had it
    assert rates == sorted(rates, reverse=True)
    assert losses(cooled)[26] == before[26]              # the same batch from the same weights
    assert losses(tmp_path / "run") == before            # the run itself is left alone


def test_a_checkpoint_to_cool_down_must_be_one(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "--cooldown", "8")
    assert done.returncode == 2
    assert "has no checkpoint yet" in done.stderr
    done = ayllu("pretrain", recipe("run"), "--checkpoint", tmp_path)
    assert done.returncode == 2
    assert "add --cooldown STEPS" in done.stderr


def test_a_run_repeats_from_its_own_config_in_any_folder(recipe, tmp_path):
    assert ayllu("pretrain", recipe("first"), "loop.steps=4").returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = ayllu("pretrain", tmp_path / "first" / "config.json", "out=second", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert same_weights(tmp_path / "first", elsewhere / "second")
    assert losses(tmp_path / "first") == losses(elsewhere / "second")
    assert ayllu("pretrain", tmp_path / "first" / "config.json", "--resume", "auto").returncode == 0


def timeless(row):
    return {k: v for k, v in json.loads(row).items() if k != "seconds"}
