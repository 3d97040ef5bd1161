"""From text files to a model by the command line: each recipe learns and exports what it trained."""

import json

import pytest
import torch
from flows.tiny import losses, packed, started
from forked import ayllu
from safetensors.torch import load_file

from ayllu.checkpoint.load import load_checkpoint
from ayllu.text.tokenizer import Tokenizer


def test_learns_and_exports_what_it_trained(recipe, tmp_path):
    process = started("pretrain", recipe("run"), "loop.steps=60", "optim.schedule.warmup_steps=5", "optim.lr=0.01",
                      "--json")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    result = json.loads(stdout.splitlines()[-1])
    assert result["steps"] == 60
    found = losses(tmp_path / "run")
    assert found[60] < found[1] - 2
    assert {"config.json", "environment.json", "data.json", "loss.png", "samples.jsonl", "model"} <= {
        p.name for p in (tmp_path / "run").iterdir()}
    assert "step 60/60" in stderr                        # progress goes to stderr
    again = ayllu("generate", "--model", result["model"], "the", "--max-tokens", "5", "--seed", "1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip()


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


def test_a_longer_context_starts_from_given_weights(recipe, tmp_path):
    assert ayllu("pretrain", recipe("short"), "loop.steps=3").returncode == 0
    done = ayllu("pretrain", recipe("long"), "loop.steps=1", "context=32", f"init_from={tmp_path / 'short' / 'model'}",
                 f"tokenizer={tmp_path / 'short' / 'tokenizer.model'}", "optim.lr=1e-12")
    assert done.returncode == 0, done.stderr
    a, b = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("short", "long"))
    for name in a:                                       # one step at a vanishing rate moves nothing
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_an_original_transformer_goes_on_from_its_weights(recipe, tmp_path):
    shape = ["model.kind=transformer", "model.dropout=0.0"]
    assert ayllu("pretrain", recipe("first"), "loop.steps=3", *shape).returncode == 0
    done = ayllu("pretrain", recipe("more"), "loop.steps=1", "optim.lr=1e-12", *shape,
                 f"init_from={tmp_path / 'first' / 'model'}", f"tokenizer={tmp_path / 'first' / 'tokenizer.model'}")
    assert done.returncode == 0, done.stderr
    a, b = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("first", "more"))
    assert a.keys() == b.keys()
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
def test_extras_are_reachable_from_a_recipe(recipe, tmp_path):
    done = ayllu("pretrain", recipe("run"), "loop.ema=0.9", "loop.patience=1", "loss.z_loss=1e-4",
                 "loss.label_smoothing=0.05", "optim.lr=3.0", "loop.eval_every=5")
    assert done.returncode == 0, done.stderr
    assert "the best evaluation was at step" in done.stderr
