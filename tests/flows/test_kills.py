"""kill -9 at 20 moments, in training, in saving, in evaluation: the run ends as if undisturbed, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

RECIPE = """
name = "tiny"
out = "{out}"
context = 16
threads = 1
compile = "off"
samples = ["the"]
eval_tokens = 200
[tokenizer]
vocab_size = 480
coverage = 1.0
[model]
vocab_size = 480
dim = 32
n_layers = 1
n_heads = 2
n_kv_heads = 1
head_dim = 16
hidden_dim = 48
max_context = 32
[loop]
steps = 200
batch_size = 4
micro_batch = 4
eval_every = 8
checkpoint_every = 4
log_every = 1
ema = 0.9
patience = 1000
[optim]
lr = 0.005
[adapt]
kind = "follow"
trial_least = 4
snapshot_every = 5
[data]
held_out = 0.1
[[data.sources]]
path = "texts.jsonl"
language = "en"
"""
KILLS = 20
MOST = {b"t": 8, b"s": 2, b"m": 2, b"e": 1}              # of such moments before a kill: 8 steps or so


class Server:
    """The forking process and what its commands tell."""

    def __init__(self, folder):
        self.letters, write = os.pipe()
        os.set_blocking(self.letters, False)
        self.errors = open(folder / "stderr", "w+", encoding="utf-8")  # noqa: SIM115 - closed with the process
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"),
                       "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("fork_server.py"), str(write)],
                                        pass_fds=(write,), env=environment, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors)
        os.close(write)

    def start(self, *words):
        self.process.stdin.write(json.dumps([str(w) for w in words]) + "\n")
        self.process.stdin.flush()
        return int(self.answer("pid"))

    def answer(self, name):
        line = self.process.stdout.readline().split()
        while line[0] != name:                           # what the command itself prints
            line = self.process.stdout.readline().split()
        return line[1]

    def wait_for(self, letter, count):
        """Until the letter has come `count` times."""
        deadline = time.monotonic() + 60
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
        self.errors.seek(0)
        return self.errors.read()[-3000:]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.process.stdin.close()
    server.process.wait(60)
    server.errors.close()


def write_recipe(folder, name):
    rows = [{"text": f"the {a} ran and the {b} {w} by the river {i}"} for i in range(6)
            for a in ("goat", "dog", "cow", "hen") for b in ("goat", "dog", "cow", "hen") for w in ("sang", "slept")]
    (folder / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(out=folder / name), encoding="utf-8")
    return path


def test_twenty_kills_change_nothing(server, tmp_path):
    whole, cut = write_recipe(tmp_path, "whole"), write_recipe(tmp_path, "cut")
    server.start("pretrain", whole)
    assert server.answer("status") == "0", server.said()
    chance = random.Random(1)
    half_written = 0
    for kill in range(KILLS):
        letter = [b"t", b"s", b"m", b"e"][kill % 4]
        server.heard()
        pid = server.start("pretrain", cut, "--resume", "auto")
        server.wait_for(letter, chance.randint(1, MOST[letter]))
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert server.answer("status") == "-9", f"the run was over before the {kill}th kill: {server.said()}"
        half_written += bool(list((tmp_path / "cut").rglob(".*.part")))
    assert half_written                                  # some of them hit a checkpoint that was being written
    server.start("pretrain", cut, "--resume", "auto")
    assert server.answer("status") == "0", server.said()
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
