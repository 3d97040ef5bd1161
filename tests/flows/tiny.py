"""A tiny recipe, the command that trains it in a process of its own, and what is read of its run."""

import json
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file

RECIPE = """
name = "tiny"
out = "{out}"
context = 16
threads = 1
compile = "off"
samples = ["the"]
{extra}
[tokenizer]
vocab_size = 480
coverage = 1.0
[model]
vocab_size = 480
dim = 32
n_layers = 2
n_heads = 2
n_kv_heads = 1
head_dim = 16
hidden_dim = 48
max_context = 32
[loop]
steps = 30
batch_size = 4
micro_batch = 2
eval_every = 10
checkpoint_every = 5
log_every = 1
[data]
held_out = 0.1
[[data.sources]]
path = "texts.jsonl"
language = "en"
"""


PACKED = """
[packing]
kind = "best_fit"
[[masks.parts]]
kind = "causal"
weight = { kind = "loss", start = 0.2, end = 1.0, high = 6.2, low = 5.0 }
[[masks.parts]]
kind = "fim"
weight = 0.5
[[masks.parts]]
kind = "tokens"
"""


def ayllu(*words, wait=True, **options):
    command = [sys.executable, "-m", "ayllu", *map(str, words)]
    if not wait:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {r["step"]: r["loss"] for r in rows if "loss" in r}


def packed(recipe, name):
    """The tiny recipe, packed and masked, with two sources by weight."""
    path = recipe(name)
    (path.parent / "more.jsonl").write_text('{"text": "the hen sang to the cow by the river"}\n' * 5)
    text = path.read_text(encoding="utf-8").replace('language = "en"', 'language = "en"\nweight = 3')
    path.write_text(text + '[[data.sources]]\npath = "more.jsonl"\nweight = 1\n' + PACKED, encoding="utf-8")
    return path


def same_weights(a, b):
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)
