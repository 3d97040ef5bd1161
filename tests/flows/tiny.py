"""A tiny recipe, its texts, and what is read of its run."""

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


def write_texts(folder, times=6):
    """256 rows, so many times; a file that stands there is left alone, for one written anew would be other data."""
    path = folder / "texts.jsonl"
    if not path.exists():
        animals, verbs = ["goat", "dog", "cow", "hen"], ["ran", "sang", "slept", "ate"]
        rows = [{"text": f"the {a} {v} and the {b} {w} by the river {i}"} for i in range(times)
                for a in animals for b in animals for v in verbs for w in verbs]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def write_recipe(folder, name, extra="", end=""):
    """The recipe `name`.toml, whose run goes to the folder `name` beside it."""
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(out=folder / name, extra=extra) + end, encoding="utf-8")
    return path


def started(*words):
    """The command as a person starts it, while it runs."""
    return subprocess.Popen([sys.executable, "-m", "ayllu", *map(str, words)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


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
