"""kill -9 at 20 moments, in training, in saving, in evaluation: the run ends as if undisturbed, bit for bit."""

import json
import os
import random
import signal
import time

import pytest
import torch
from flows.tiny import write_recipe, write_texts
from forked import Forks
from safetensors.torch import load_file

OFTEN = ["model.n_layers=1", "eval_tokens=200", "loop.steps=200", "loop.micro_batch=4", "loop.eval_every=8",
         "loop.checkpoint_every=4", "loop.ema=0.9", "loop.patience=1000", "optim.lr=0.005", "adapt.kind=follow",
         "adapt.trial_least=4", "adapt.snapshot_every=5"]
KILLS = 20
MOST = {b"t": 8, b"s": 2, b"m": 2, b"e": 1}              # of such moments before a kill: 8 steps or so


class Told(Forks):
    """Forks, and what their commands tell of themselves."""

    patience_s = 60

    def __init__(self, folder):
        self.letters, write = os.pipe()
        os.set_blocking(self.letters, False)
        self.errors = folder / "stderr"
        super().__init__(str(write), pass_fds=(write,))
        os.close(write)

    def train(self, recipe, *words):
        return self.start("pretrain", recipe, *OFTEN, *words, err=self.errors)

    def wait_for(self, letter, count):
        """Until the letter has come `count` times."""
        deadline = time.monotonic() + self.patience_s
        while count > 0:
            assert time.monotonic() < deadline, self.said()
            count -= self.heard().count(letter)
            time.sleep(0.0005)

    def heard(self):
        try:
            return os.read(self.letters, 4096)
        except BlockingIOError:
            return b""

    def said(self):
        return self.errors.read_text(encoding="utf-8")[-3000:]


@pytest.fixture
def told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    told = Told(tmp_path)
    yield told
    told.close()


def test_twenty_kills_change_nothing(told, tmp_path):
    write_texts(tmp_path, times=1)
    whole, cut = write_recipe(tmp_path, "whole"), write_recipe(tmp_path, "cut")
    told.train(whole)
    assert told.status() == 0, told.said()
    chance = random.Random(1)
    half_written = 0
    for kill in range(KILLS):
        letter = [b"t", b"s", b"m", b"e"][kill % 4]
        told.heard()
        pid = told.train(cut, "--resume", "auto")
        told.wait_for(letter, chance.randint(1, MOST[letter]))
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert told.status() == -9, f"the run was over before the {kill}th kill: {told.said()}"
        half_written += bool(list((tmp_path / "cut").rglob(".*.part")))
    assert half_written                                  # some of them hit a checkpoint that was being written
    told.train(cut, "--resume", "auto")
    assert told.status() == 0, told.said()
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(tmp_path / "cut" / name) == rows(tmp_path / "whole" / name)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert sorted(p.name for p in (tmp_path / "cut" / "checkpoints").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole" / "checkpoints").iterdir())
    assert any("decision" in row for row in rows(tmp_path / "whole" / "metrics.jsonl"))


def rows(path):
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]
