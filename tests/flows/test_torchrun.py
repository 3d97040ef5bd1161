"""`torchrun -m ayllu pretrain`: the printed line trains on two ranks as one process does, resumes, and exports once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flows.tiny import losses, write_recipe, write_texts

ROOT = Path(__file__).parents[2]


def recipe_in(folder, name):
    write_texts(folder)
    return write_recipe(folder, name, end="\n[parallel]\n")


def environment(folder):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(folder, *words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=170,
                          env=environment(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_devices_prints_the_line_to_start(tmp_path):
    done = run(tmp_path, sys.executable, "-m", "ayllu", "pretrain", recipe_in(tmp_path, "run"), "loop.steps=4",
               "--devices", "2")
    assert done.stdout.strip() == ("torchrun --standalone --nproc-per-node 2 -m ayllu pretrain "
                                   f"{tmp_path / 'run.toml'} loop.steps=4")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["parallel.mode=fsdp", "parallel.tensor=2"])
def test_torchrun_trains_resumes_and_exports_as_one_process_does(tmp_path, how):
    start = ["-m", "ayllu", "pretrain"]
    set_up = ["model.n_kv_heads=2", "loop.steps=10", "loop.precision=float32", "optim.schedule.warmup_steps=2",
              "optim.schedule.kind=constant"]
    torchrun = ["torchrun", "--standalone", "--nproc-per-node", "2", *start, recipe_in(tmp_path, "two"), how, *set_up]
    run(tmp_path, *torchrun, "loop.steps=5")
    run(tmp_path, sys.executable, *start, recipe_in(tmp_path, "constant"), *set_up)
    done = run(tmp_path, *torchrun, "--resume", "--json")
    assert "resuming" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 10
    assert len(done.stdout.splitlines()) == 1            # from the first rank alone
    expected, found = losses(tmp_path / "constant"), losses(tmp_path / "two")
    assert found == pytest.approx(expected, rel=1e-5)    # float32 sums in another order
    again = run(tmp_path, sys.executable, "-m", "ayllu", "generate", "--model", tmp_path / "two" / "model", "the",
                "--max-tokens", "5", "--seed", "1")
    assert again.stdout.strip()
