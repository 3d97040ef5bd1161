"""Runs on many ranks: what a dry run reckons, what it refuses and what it advises; the recipes of 7B and 70B."""

import re
import time
from pathlib import Path

import pytest
import torch
from train.test_memory import config

from ayllu.cli.launch import torchrun_lines
from ayllu.config import load_recipe
from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.presets import preset
from ayllu.model.spread import Ranks, spread
from ayllu.train import plan
from ayllu.train.head_loss import GPU_NUMBERS
from ayllu.train.memory import predict
from ayllu.train.planned import check_planned, foresee, needed, plan_of, ranks_of_plan, settled_rows
from ayllu.train.pretrain import PretrainConfig

RECIPES = Path(__file__).parents[2] / "recipes"


def recipe(name, *words):
    return load_recipe(PretrainConfig, RECIPES / f"{name}.toml", list(words))


@pytest.mark.parametrize("name", ["llama2-7b", "llama2-70b"])
def test_the_recipes_are_the_paper_and_fit(name):
    """arXiv:2307.09288, section 2.2 and table 1: 2.0T tokens, 4M a step, 4,096 at once."""
    loaded = recipe(name)
    shape = preset(name)
    assert loaded.model.model_dump() == shape.model_dump()
    started = time.process_time()
    found = plan.dry_run(loaded)
    assert time.process_time() - started < 5                                 # 70B took minutes by the ledger
    assert found["tokens"] == pytest.approx(2e12, rel=1e-5)
    assert found["predicted_bytes"] < found["limit_bytes"] == 72e9
    parallel = loaded.parallel
    said = spread(shape, Ranks(parallel.data, parallel.tensor, 1024, loaded.loop.micro_batch, 4096,
                               recomputes=loaded.loop.activation_checkpointing))
    assert found["predicted_bytes"] == round(said.memory)
    assert found["hours"] == pytest.approx(476_837 * said.step_s / 3600, rel=1e-3)
    text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    assert f"#   {torchrun_lines(found['ranks'], 8, [f'recipes/{name}.toml'])}\n" in text
    assert f"on {found['ranks']} GPUs" in text


def test_a_plan_that_cannot_fit_says_what_would():
    with pytest.raises(ConfigError) as error:
        plan.dry_run(recipe("llama2-70b", "parallel.data=16"))
    told = str(error.value)
    assert "each of 16 ranks" in told
    fits = re.search(r"(parallel\.data=32) (parallel\.tensor=1) \(32 ranks\) takes ([\d.]+) GB and fits", told)
    assert float(fits[3]) == round(plan_of(recipe("llama2-70b", fits[1], fits[2]))["predicted_bytes"] / 1e9, 2)
    with pytest.raises(ConfigError, match=r"activation_checkpointing=true takes .* and fits"):
        check_planned(recipe("llama2-7b", "plan.memory_gb=24"))


def test_auto_takes_the_most_rows_that_are_foreseen_to_fit():
    auto = recipe("llama2-7b", "loop.micro_batch=auto")
    rows = settled_rows(auto)
    assert 1 < rows < 16
    assert plan_of(auto)["micro_batch"] == rows
    with pytest.raises(ConfigError, match="may be used"):
        check_planned(recipe("llama2-7b", f"loop.micro_batch={2 * rows}"))


def test_a_start_with_too_few_processes_is_refused_before_anything_is_predicted(monkeypatch):
    monkeypatch.delattr("ayllu.train.plan.predict")
    with pytest.raises(ConfigError, match="needs 512 processes, found 1"):
        plan.ready(recipe("llama2-70b"))
    alone = recipe("llama2-70b", "parallel.data=1")
    for ask in (plan.ready, plan.dry_run):
        with pytest.raises(ConfigError, match=r"68,976,648,192 parameters take 827\.72 GB.*parallel\.data=32 or more"):
            ask(alone)


@pytest.mark.parametrize("changes", [{}, {"optim": {"kind": "muon"}}, {"optim": {"kind": "prodigy"}},
                                     {"optim": {"kind": "schedule_free"}}, {"loop": {"ema": 0.9}},
                                     {"adapt": {"kind": "follow"}}], ids=str)
def test_the_moments_are_those_that_the_ledger_counts(changes):
    """Of one rank that holds everything; beside them lie its weights, and 3 copies of all under `follow`."""
    found, said = config(**changes), foresee(config(**changes, parallel={"data": 1}))
    assert said.weights + said.moments == pytest.approx(predict(found, torch.device("cpu")).state, rel=0.02)
    assert said.weights == 4 * n_parameters(found.model)


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(ConfigError, match="n_kv_heads=8"):
        plan.dry_run(recipe("llama2-70b", "parallel.tensor=16", "parallel.data=32"))
    with pytest.raises(ConfigError, match="a multiple"):
        plan.dry_run(recipe("llama2-70b", "parallel.data=96"))
    assert ranks_of_plan(recipe("llama2-70b", "parallel.tensor=8", "parallel.data=64")).count == 512


def test_logits_that_exist_at_once_are_those_of_the_loss():
    whole, some = (foresee(recipe("llama2-7b", f"loss.chunk={chunk}", "loop.micro_batch=2")).memory
                   for chunk in (0, 512))
    assert whole > some + 4 * (8192 - 512) * 32_000      # one float32 number of each logit at the least
    assert ranks_of_plan(recipe("llama2-7b")).logits == GPU_NUMBERS == Ranks(1, 1, 1, 1, 1).logits


def test_started_ranks_of_a_cpu_also_hold_what_is_written_in_the_background(monkeypatch):
    behind = config(parallel={"data": 2}, loop={"batch_size": 4})
    once = config(parallel={"data": 2}, loop={"batch_size": 4, "async_save": False})
    assert needed(behind) == needed(once)                # a plan for GPUs, whose copy lies elsewhere
    monkeypatch.setenv("WORLD_SIZE", "2")
    step = foresee(once)
    assert needed(behind) == needed(once) + step.weights + step.moments
    limit = (needed(behind) + needed(once)) / 2e9
    with pytest.raises(ConfigError, match=r"loop\.async_save=false takes .* and fits"):
        check_planned(config(parallel={"data": 2}, loop={"batch_size": 4}, plan={"memory_gb": limit}))


@pytest.mark.parametrize("kind", ["llama", "transformer"])
def test_ranks_that_can_not_hold_the_model_refuse_to_start(monkeypatch, kind):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shape = config().model.model_dump()
    named = {"kind": kind, **{key: shape[key] for key in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim",
                                                          "hidden_dim", "vocab_size", "max_context")}}
    too_small = config(model=named, parallel={"data": 2}, loop={"batch_size": 4}, plan={"memory_gb": 1e-3})
    with pytest.raises(ConfigError, match="each of 2 ranks is foreseen to take"):
        plan.ready(too_small)
