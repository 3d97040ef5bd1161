"""Dry runs of rewards, reward models and heads: what is predicted is what a rehearsal takes, and nothing is left."""

import json

import pytest
import torch

from ayllu.cli.main import run
from ayllu.config import build_recipe
from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.parallel import ParallelConfig
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.memory import predict
from ayllu.train.method import looks, read_settings
from ayllu.train.plan import dry_run, ready, settled
from ayllu.train.planned import foresee, needed
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.rehearse import measure
from ayllu.train.sft_config import SftConfig

CPU = torch.device("cpu")
SHAPE = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 128, "vocab_size": 512,
         "max_context": 256}
SOURCES = {"sources": [{"path": "rows.jsonl"}]}
METHODS = {
    "grpo": (GrpoConfig, {"data": SOURCES, "rewards": [{"kind": "exact"}], "group": 4, "max_tokens": 8}),
    "reward": (PreferConfig, {"method": "reward", "data": SOURCES, "eval_rows": 16}),
    "head": (HeadRecipe, {"data": {"path": "rows.csv"}}),
}


def settings(name, *overrides, shape=SHAPE):
    kind, more = METHODS[name]
    table = {"name": "n", "out": "o", "base": "b", "model": shape, "device": "cpu", "context": 32, "threads": 1,
             "loop": {"steps": 20, "batch_size": 16, "micro_batch": 4, "eval_every": 5, "checkpoint_every": 5}, **more}
    return build_recipe(kind, table, list(overrides), where="a test")


@pytest.mark.parametrize("name", METHODS)
def test_the_state_is_weights_gradients_aside_and_two_moments(name):
    found, config = predict(settings(name), CPU), settings(name)
    assert read_settings(config.model_dump_json()) == config
    body = n_parameters(LlamaConfig(**SHAPE)) - (name != "grpo") * 64 * 512      # a head stands in the output's place
    pages = 16 * 3 * 16 * 2 * 2 * 2 * 16 * 4 if name == "grpo" else 0            # of the engine: keys and values
    assert found.state == pytest.approx(12 * body + pages, rel=0.05)
    assert found.moments["step"] > found.state


@pytest.mark.parametrize(("name", "less"), [("grpo", "lora={r=2}"), ("reward", "lora={r=2}"), ("head", "learns=head"),
                                            ("head", "learns=adapter")])
def test_frozen_weights_take_less(name, less):
    assert predict(settings(name, less), CPU).state < 0.7 * predict(settings(name), CPU).state


@pytest.mark.parametrize("name", METHODS)
def test_longer_texts_take_more(name):
    one, four = (predict(settings(name, f"context={n}"), CPU).moments["step"] for n in (64, 256))
    assert four > 1.5 * one


def test_an_original_transformer_with_a_head_is_foreseen():
    shape = SHAPE | {"kind": "transformer", "n_kv_heads": 4}
    config = settings("head", shape=shape)
    assert isinstance(config.model, TransformerConfig)
    assert predict(config, CPU).state > 12 * 64 * 512


def test_evaluations_count_by_what_is_held_out():
    assert looks(settings("grpo", "eval_prompts=10")) == 3                       # of 4 prompts a step
    assert looks(settings("head", "epochs=1", "loop.steps=100")) == 11           # 15 % of 2,286 rows in parts of 32


@pytest.mark.parametrize("name", METHODS)
def test_a_rehearsal_runs_every_part(name):
    found = measure(settings(name))
    assert set(found["peaks"]) == {"step", "evaluation", "saving"}
    assert found["step_s"] > 0 < found["evaluation_s"]


@pytest.mark.parametrize("name", METHODS)
def test_what_can_not_fit_is_said_before_anything_is_read(name):
    with pytest.raises(ConfigError, match="may be used"):
        dry_run(settings(name, "plan={memory_gb=0.01}"))


def test_a_part_of_a_batch_that_fits_is_found_for_rewards():
    assert settled(settings("grpo", "loop.micro_batch=auto"), CPU, None).loop.micro_batch == 16


def tuned(*overrides, ranks=4):
    table = {"name": "n", "out": "o", "base": "b", "model": SHAPE, "device": "cpu", "context": 32, "data": SOURCES,
             "loop": {"steps": 20, "batch_size": 16, "micro_batch": 2}, "parallel": {"data": ranks}}
    return build_recipe(SftConfig, table, list(overrides), where="a test")


def test_all_weights_on_many_ranks_are_foreseen_as_in_pretraining():
    found = dry_run(tuned("parallel.tensor=2"))
    pretraining = PretrainConfig.model_construct(**dict(tuned("parallel.tensor=2")))
    assert found["predicted_bytes"] == round(foresee(pretraining).memory)
    assert (found["ranks"], found["tokens"]) == (8, 20 * 16 * 32)
    room = needed(tuned("loop.micro_batch=3")) / 1e9
    assert dry_run(tuned("loop.micro_batch=auto", f"plan.memory_gb={room}"))["micro_batch"] == 2


WHOLE = [*(tuned(more, "parallel.mode=data") for more in ("lora={r=2}", "anchor=0.1")),
         *(settings(name, "parallel={mode='data', data=4}") for name in METHODS)]


@pytest.mark.parametrize("config", WHOLE, ids=["lora", "anchor", *METHODS])
def test_whole_models_on_many_ranks_are_foreseen_as_each_by_itself(config, monkeypatch):
    alone = config.model_copy(update={"parallel": ParallelConfig(),
                                      "loop": config.loop.model_copy(update={"batch_size": 4})})
    found = dry_run(config)
    assert found["predicted_bytes"] == predict(alone, CPU).most
    assert (found["ranks"], found["tokens"]) == (4, 20 * 16 * 32)
    small = config.model_copy(update={"plan": config.plan.model_copy(update={"memory_gb": 0.001})})
    with pytest.raises(ConfigError, match="each of 4 ranks"):
        dry_run(small)
    with pytest.raises(ConfigError, match=r"whole models only.*parallel\.mode=data"):
        dry_run(config.model_copy(update={"parallel": ParallelConfig(data=4)}))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="may be used"):
        ready(small)
    assert ready(config) == config


@pytest.fixture
def rows(tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [{"prompt": f"the fox {i}", "chosen": "runs", "rejected": f"sleeps {i} days", "answer": str(i),
             "text": f"the fox {'runs' if i % 2 else 'sleeps'} {i}", "label": str(i % 2)} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    return str(tiny_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["grpo", "BASE", "rows.jsonl", "--reward", "exact", "group=4", "max_tokens=16", "loop.batch_size=8"],
    ["prefer", "BASE", "rows.jsonl", "method=reward"], ["train-head", "rows.jsonl", "--model", "BASE"]], ids=str)
def test_a_dry_run_by_the_command_leaves_nothing(rows, tmp_path, words, capfd):
    tuned = ["data.template=plain", "data.held_out=0.2", "context=64"] if words[0] != "train-head" else []
    line = [rows if word == "BASE" else word for word in words]
    assert run([*line, *tuned, "threads=1", "--dry-run", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert plan["predicted_bytes"] == pytest.approx(plan["measured_bytes"], rel=0.2)
    assert plan["steps"] > 0 < plan["hours"]
    if words[0] == "train-head":
        assert plan["train_rows"] + plan["held_out_rows"] + plan["test_rows"] == 60
        assert plan["labels"] == 2
        assert plan["longest"] < 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]
