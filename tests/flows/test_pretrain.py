"""From text files to a model by the command line: learn, stop, resume, export, and say clearly what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from ayllu.checkpoint.load import load_checkpoint
from ayllu.config import load_recipe
from ayllu.errors import ConfigError
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.pretrain import PretrainConfig

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


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    animals, verbs = ["goat", "dog", "cow", "hen"], ["ran", "sang", "slept", "ate"]
    rows = [{"text": f"the {a} {v} and the {b} {w} by the river {i}"} for i in range(6)
            for a in animals for b in animals for v in verbs for w in verbs]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")

    def write(name, extra=""):
        path = tmp_path / f"{name}.toml"
        path.write_text(RECIPE.format(out=tmp_path / name, extra=extra), encoding="utf-8")
        return path

    return write


def ayllu(*words, wait=True, **options):
    command = [sys.executable, "-m", "ayllu", *map(str, words)]
    if not wait:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {r["step"]: r["loss"] for r in rows if "loss" in r}


def test_learns_and_exports_what_it_trained(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "loop.steps=60", "optim.schedule.warmup_steps=5", "optim.lr=0.01", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["steps"] == 60
    found = losses(tmp_path / "run")
    assert found[60] < found[1] - 2
    assert {"config.json", "environment.json", "data.json", "loss.png", "samples.jsonl", "model"} <= {
        p.name for p in (tmp_path / "run").iterdir()}
    assert "step 60/60" in done.stderr                   # progress goes to stderr
    again = ayllu("generate", "--model", result["model"], "the", "--max-tokens", "5", "--seed", "1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.15, 0.4])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, delay_s):
    whole = ayllu("pretrain", recipe("whole"))
    assert whole.returncode == 0, whole.stderr
    process = ayllu("pretrain", recipe("cut"), wait=False)
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


def packed(recipe, name):
    """The tiny recipe, packed and masked, with two sources by weight."""
    path = recipe(name)
    (path.parent / "more.jsonl").write_text('{"text": "the hen sang to the cow by the river"}\n' * 5)
    text = path.read_text(encoding="utf-8").replace('language = "en"', 'language = "en"\nweight = 3')
    path.write_text(text + '[[data.sources]]\npath = "more.jsonl"\nweight = 1\n' + PACKED, encoding="utf-8")
    return path


def test_packing_masks_and_weights_by_a_recipe(recipe, tmp_path):
    changes = ["context=32", "optim.lr=0.01", "optim.schedule.warmup_steps=5"]
    path = packed(recipe, "run")
    done = ayllu("pretrain", path, *changes)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = {key for row in rows for key in row if key.startswith("masks/objective/")}
    assert names == {f"masks/objective/{kind}" for kind in ("causal", "fim", "tokens")}
    assert losses(tmp_path / "run")[30] < losses(tmp_path / "run")[1] - 0.5
    assert rows[-1]["bits_per_byte_en"] > 0
    sources = json.loads((tmp_path / "run" / "mixture.json").read_text())
    assert [round(source["share"], 3) for source in sources] == [0.75, 0.25]
    assert sources[1]["epochs"] > 4
    assert "warning: more.jsonl will be seen" in done.stderr
    for change in ("masks.smoothing=0.5", "packing.reserve=0.5"):
        again = ayllu("pretrain", path, *changes, change, "loop.steps=31", "--resume")
        assert again.returncode == 2
        assert "was trained with data=" in again.stderr
    assert ayllu("pretrain", path, *changes, "loop.steps=31", "--resume").returncode == 0


@pytest.mark.parametrize(("override", "message"), [
    ("packing.kind=none", "masks hide parts of whole documents"),
    ("packing.attention=flex", "needs a GPU and a compiler"),
])
def test_masks_that_can_not_be(recipe, override, message):
    done = ayllu("pretrain", packed(recipe, "run"), override, "device=cpu")
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_killed_packed_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, delay_s):
    assert ayllu("pretrain", packed(recipe, "whole")).returncode == 0
    path = packed(recipe, "cut")
    process = ayllu("pretrain", path, wait=False)
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
    process = ayllu("pretrain", recipe("run"), "loop.steps=5000", wait=False)
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


@pytest.mark.parametrize(("override", "message"), [
    ("loop.stepz=3", "unknown key 'loop.stepz'; did you mean 'steps'?"),
    ("model.dimm=3", "did you mean 'dim'?"),
    ("loop.steps=0", "loop.steps: Input should be greater than 0"),
    ("loop.steps", "should read key=value"),
    ("model.kind=mamba", "kind is 'llama' (the default) or 'transformer'"),
])
def test_bad_overrides(recipe, override, message):
    with pytest.raises(ConfigError) as error:
        load_recipe(PretrainConfig, recipe("run"), [override])
    assert message in str(error.value)


@pytest.mark.parametrize(("override", "message"), [
    ("model.vocab_size=500", "model.vocab_size=500, but the tokenizer has 480 ids"),
    ("context=64", "context=64 is longer than model.max_context=32"),
    ("data.root=nowhere", "set data.root=FOLDER"),
    ("compile=on", "compile=on, but there is no C++ compiler"),
])
def test_what_does_not_fit_is_said_before_training(recipe, override, message, tmp_path):
    path = {**os.environ, "PATH": str(tmp_path)} if "compile" in override else None
    done = ayllu("pretrain", recipe("run"), override, env=path)
    assert done.returncode == 2
    assert message in done.stderr


def test_without_a_compiler_training_runs_eager_and_says_so(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "compile=auto", "loop.steps=2", env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "training runs eager, not compiled" in done.stderr


def test_a_longer_context_starts_from_given_weights(recipe, tmp_path):
    assert ayllu("pretrain", recipe("short"), "loop.steps=3").returncode == 0
    done = ayllu("pretrain", recipe("long"), "loop.steps=1", "context=32", f"init_from={tmp_path / 'short' / 'model'}",
                 f"tokenizer={tmp_path / 'short' / 'tokenizer.model'}", "optim.lr=1e-12")
    assert done.returncode == 0, done.stderr
    a, b = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("short", "long"))
    for name in a:                                       # one step at a vanishing rate moves nothing
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_the_bundled_models_tokenizer_and_weights_by_its_name(recipe, tmp_path):
    text = recipe("run").read_text(encoding="utf-8").replace("[tokenizer]\nvocab_size = 480\ncoverage = 1.0\n", "")
    (tmp_path / "run.toml").write_text(text.replace("context = 16", 'context = 16\ntokenizer = "ayllu-mini"'),
                                       encoding="utf-8")
    done = ayllu("pretrain", tmp_path / "run.toml", "loop.steps=1", "model.vocab_size=16000")
    assert done.returncode == 0, done.stderr
    trained = Tokenizer.load(tmp_path / "run" / "model")
    assert trained.fingerprint == load_checkpoint("ayllu-mini").tokenizer.fingerprint
    shape = [f"model.{key}={value}" for key, value in {"dim": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2,
                                                       "head_dim": 64, "hidden_dim": 768, "tie_embeddings": "true",
                                                       "vocab_size": 16000, "max_context": 2048}.items()]
    more = ayllu("pretrain", tmp_path / "run.toml", "init_from=ayllu-mini", "loop.steps=1", "optim.lr=1e-12", *shape,
                 f"out={tmp_path / 'more'}")
    assert more.returncode == 0, more.stderr
    weights = load_file(tmp_path / "more" / "model" / "model.safetensors")
    bundled = dict(load_checkpoint("ayllu-mini", dtype="float32").model.named_parameters())
    torch.testing.assert_close(weights["model.norm.weight"], bundled["norm.weight"].detach(), rtol=0, atol=1e-6)
    absent = ayllu("pretrain", tmp_path / "run.toml", "tokenizer=ayllu-maxi", "loop.steps=2",
                   f"out={tmp_path / 'other'}")
    assert absent.returncode == 2
    assert "give a file or folder, ayllu-mini" in absent.stderr


@pytest.mark.slow
def test_compiled_training_equals_eager(recipe, tmp_path):
    for mode in ("off", "on"):
        done = ayllu("pretrain", recipe(mode), f"compile={mode}", "loop.autocast=false", "loop.steps=10")
        assert done.returncode == 0, done.stderr
    eager, compiled = losses(tmp_path / "off"), losses(tmp_path / "on")
    for step, loss in eager.items():                     # float32: sums in another order, over ten updates
        assert compiled[step] == pytest.approx(loss, rel=1e-4)


def test_the_original_transformer_runs_through_the_same_loop(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "model.kind=transformer", "loop.steps=3")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "ayllu_config.json").exists()


def same_weights(a, b):
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["muon", "schedule_free", "prodigy"])
def test_every_optimiser_trains_through_the_command(recipe, tmp_path, kind):
    extra = [] if kind != "schedule_free" else ["optim.schedule.kind=constant"]
    lr = [] if kind == "prodigy" else ["optim.lr=0.01"]
    done = ayllu("pretrain", recipe("run"), f"optim.kind={kind}", "optim.schedule.warmup_steps=5", "loop.steps=60",
                 *lr, *extra)
    assert done.returncode == 0, done.stderr
    found = losses(tmp_path / "run")
    assert found[60] < found[1] - (0.5 if kind == "prodigy" else 1.0)      # which spends the first steps on its rate


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


@pytest.mark.slow
def test_extras_are_reachable_from_a_recipe(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "loop.ema=0.9", "loop.patience=1", "loss.z_loss=1e-4",
                 "loss.label_smoothing=0.05", "optim.lr=3.0", "loop.eval_every=5")
    assert done.returncode == 0, done.stderr
    assert "the best evaluation was at step" in done.stderr


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


def timeless(row):
    return {k: v for k, v in json.loads(row).items() if k != "seconds"}
