"""Learning from preferences: it learns, resumes bit for bit, and its batches lose what their answers lose alone."""

import json
import math

import numpy as np
import pytest
import torch

from ayllu.adapters.lora import without
from ayllu.checkpoint.load import load_checkpoint
from ayllu.cli.sft import read_tuning
from ayllu.config import load_recipe
from ayllu.data.pair_loader import PairLoader
from ayllu.errors import CheckpointError, ConfigError
from ayllu.train.base import base_model
from ayllu.train.loop import accumulate
from ayllu.train.plan import dry_run
from ayllu.train.prefer import PreferConfig, logps, prefer, prepared, training_loss
from ayllu.train.prefer_eval import wins
from ayllu.train.prefer_loss import Tally
from ayllu.train.preference_losses import dpo, kto, kto_zero
from ayllu.train.sft import new_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"the fox {i}", "chosen": "the river", "rejected": "the stars and the bird"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings(tiny_checkpoint, pairs, tmp_path):
    def make(*changes, run="run"):
        words = ["data.template=llama2", "data.held_out=0.2", "context=64", "threads=1", "loop.batch_size=4",
                 "loop.micro_batch=2", "loop.eval_every=50", "loop.precision=float32", "loop.log_every=1",
                 "optim.lr=3e-3", "optim.schedule.kind=constant", f"out={tmp_path / run}", "resamples=200", *changes]
        return read_tuning(PreferConfig, [str(tiny_checkpoint), str(pairs), *words], "")
    return make


def run(settings, *changes, resume=False, name="run"):
    config, folder = settings(*changes, run=name)
    return prefer(*prepared(config, folder), folder, resume)


def weights_of(folder):
    return dict(load_checkpoint(folder / "model", dtype="float32").model.named_parameters())


def begun(settings, *changes):
    config, folder = settings(*changes)
    config, lesson = prepared(config, folder)
    return config, lesson.gathered.train, new_state(config, base_model(config, lesson.source, CPU)[0]).model


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "orpo", "simpo"])
def test_it_learns_what_is_preferred(settings, tmp_path, method):
    result = run(settings, f"method={method}", "loop.steps=15", "lora.r=4", "optim.lr=0.02")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "reward_chosen" in row]
    if method in ("dpo", "ipo", "kto"):                  # the reference is the model itself: B is 0 at the start
        assert abs(steps[0]["reward_chosen"]) < 1e-4
    gap = [row["reward_chosen"] - row["reward_rejected"] for row in steps]
    assert gap[-1] > gap[0] + 0.05
    assert result["held_out_accuracy"] == 1
    assert result["likelihood_accuracy_by_id_after"] >= result["likelihood_accuracy_by_id_before"]
    assert result["held_out_pairs"] == json.loads(
        (tmp_path / "run" / "data.json").read_text())["rows"]["kept_held_out"]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_a_resume_is_exact_and_knows_its_reference(settings, tmp_path):
    same = ["method=kto", "loop.checkpoint_every=3"]
    run(settings, "loop.steps=6", *same)
    run(settings, "loop.steps=3", *same, name="halves")
    run(settings, "loop.steps=6", *same, name="halves", resume=True)
    whole, halves = (weights_of(tmp_path / name) for name in ("run", "halves"))
    for name in whole:
        assert torch.equal(whole[name], halves[name]), name
    path = tmp_path / "run" / "reference.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged, or of other data"):
        run(settings, "loop.steps=9", *same, resume=True)
    again = load_recipe(PreferConfig, tmp_path / "halves" / "config.json", [f"out={tmp_path / 'again'}"])
    prefer(*prepared(again, tmp_path), tmp_path)
    for name, weight in weights_of(tmp_path / "again").items():
        assert torch.equal(weight, whole[name]), name


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_micro_batches_change_nothing_and_answers_lose_what_they_lose_alone(settings, method):
    config, rows, model = begun(settings, f"method={method}", "beta=0.3")
    known = logps(config, model, rows, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02)                         # away from the reference
    loader = PairLoader(rows, config.context, 4, reference=known, crosses=method == "kto")
    loss, found = training_loss(config, CPU, Tally()), []
    for n in (1, 4):
        model.zero_grad()
        loop = config.loop.model_copy(update={"micro_batch": n})
        total, weight = accumulate(model, loader.batch(1), loss, loop, CPU)
        found.append((total, weight, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (a, n, one), (b, m, four) = found
    assert n == m == (8 if method == "kto" else 4)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for name in one:                                     # sums of float32 in another order
        torch.testing.assert_close(one[name], four[name], rtol=1e-3, atol=1e-5)
    batch, alone = loader.batch(1), []
    for row, reference, other in zip(batch.rows, batch.reference, batch.crossed or batch.rows, strict=True):
        answers = [row.good, row.bad, *([other] if method == "kto" else [])]
        alone.append([plain(model, answer) - known for answer, known in zip(answers, reference.tolist(), strict=False)])
    ratio = torch.tensor(alone)
    if method == "dpo":
        wanted = dpo(ratio[:, 0], ratio[:, 1], 0.3).sum()
    else:
        zero = kto_zero(ratio[:, 2])
        wanted = sum(kto(ratio[:, side], torch.full((4,), side == 0), zero, 0.3).sum() for side in (0, 1))
    torch.testing.assert_close(a, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def plain(model, answer):
    """log p of an answer, one id after the other."""
    ids = torch.from_numpy(answer.ids.astype(np.int64))
    probabilities = model(ids[None, :-1])[0].softmax(-1)
    return sum(math.log(probabilities[n - 1, ids[n]]) for n in range(answer.start, len(ids)))


def test_the_reference_is_the_model_without_its_adapter(settings):
    config, rows, model = begun(settings, "lora.r=4", "lora.lora_dropout=0.5")
    known = logps(config, model, rows, CPU)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_()
    assert np.abs(logps(config, model, rows, CPU) - known)[:, :2].min() > 1e-3
    with without(model):
        assert np.array_equal(logps(config, model, rows, CPU), known)


def test_a_tie_is_one_half():
    assert wins(np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_what_does_not_go_together(settings):
    for changes, what in ((["method=ipo", "label_smoothing=0.1"], "is for method=dpo"),
                          (["method=kto", "loop.batch_size=1"], "loop.batch_size=2 or more"),
                          (["loss.z_loss=1e-4"], "next-token losses"),
                          (["loop.patience=2", "data.held_out=0"], "nothing is held out"),
                          (["method=ppo"], "'orpo', 'simpo' or 'reward'"),
                          (["merge=true"], "for a frozen base"),
                          (["context=4096"], "longer than the base's")):
        with pytest.raises(ConfigError, match=what):
            run(settings, *changes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_dry_run_foresees_it(settings, method):
    config, folder = settings(f"method={method}", "lora.r=4", "loop.steps=3")
    found = dry_run(prepared(config, folder)[0])
    assert found["steps"] == 3
    assert found["predicted_bytes"] > found["base_bytes"]
