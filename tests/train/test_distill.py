"""Distillation: the losses are the plain formulas with their gradients, cached ones equal live ones, and it runs."""

import json

import pytest
import torch
import torch.nn.functional as F
from train.test_sft import assert_equal, chats, lesson_of, run, settings, weights_of  # noqa: F401 - fixtures

from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.save import save_checkpoint
from ayllu.config import build_recipe
from ayllu.data.pack_loader import PackedBatch
from ayllu.errors import AylluError, ConfigError
from ayllu.model.llama import Llama
from ayllu.train import pretrain
from ayllu.train.distill import DistillConfig, Teacher, divergence, with_rest
from ayllu.train.lesson import prepared
from ayllu.train.memory import predict
from ayllu.train.plan import dry_run
from ayllu.train.pretrain import PretrainConfig, with_teacher
from ayllu.train.sft import training_loss
from ayllu.train.sft_loss import sft_loss

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tiny_checkpoint, tmp_path_factory):
    """Another and wider model with the same tokenizer."""
    from untamed import untamed
    base = load_checkpoint(tiny_checkpoint, dtype="float32")
    shape = base.config.model_copy(update={"dim": 48, "n_heads": 6, "n_kv_heads": 2, "hidden_dim": 96})
    model = Llama(shape)
    model.load_state_dict(untamed(shape).state_dict())
    return save_checkpoint(tmp_path_factory.mktemp("teacher") / "big", model, tokenizer=base.tokenizer)


def test_divergences_are_the_plain_formulas():
    torch.manual_seed(0)
    p, q = (torch.randn(5, 9, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    for direction, a, b in (("forward", p, q), ("reverse", q, p)):
        wanted = [sum(float(x.exp()) * float(x - y) for x, y in zip(*rows, strict=True))
                  for rows in zip(a, b, strict=True)]
        torch.testing.assert_close(divergence(p, q, direction), torch.tensor(wanted, dtype=torch.float64))
    whole = divergence(p, q, "forward")
    for k in (1, 4, 8):
        top = p.topk(k)
        part = divergence(with_rest(top.values), with_rest(q.gather(-1, top.indices)), "forward")
        assert (part <= whole + 1e-6).all()              # classes of ids tell less than ids
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)            # 8 of 9, and the rest is the ninth


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("top_k", [0, 10_000])
def test_a_student_loses_what_the_formula_says(settings, teacher, direction, top_k):  # noqa: F811
    config, lesson, model = lesson_of(settings)
    bigger = load_checkpoint(teacher, dtype="float32").model
    made = DistillConfig(teacher="x", weight=0.7, temperature=2.0, direction=direction, top_k=top_k)
    batch = lesson.loader(config).batch(0)
    model.train()
    found = sft_loss(model, batch, teacher=Teacher(bigger, made))
    found.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    plain = sft_loss(model, batch)
    attends = [batch.attend()] * 2
    with torch.no_grad():
        theirs = F.log_softmax(bigger(batch.ids, batch.positions, attends) / 2.0, -1)
    ours = F.log_softmax(model(batch.ids, batch.positions, attends) / 2.0, -1)
    a, b = (theirs, ours) if direction == "forward" else (ours, theirs)
    apart = 4 * (a.exp() * (a - b)).sum(-1) * batch.weights
    wanted = 0.3 * plain.total + 0.7 * apart.sum()
    torch.testing.assert_close(found.total, wanted, rtol=1e-4, atol=1e-3)    # sums of float32 in another order
    torch.testing.assert_close(found.per_example.sum(), wanted, rtol=1e-4, atol=1e-3)
    wanted.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=2e-3, atol=2e-4)


def test_kept_distributions_are_not_computed_again(settings, teacher):  # noqa: F811
    config, lesson, model = lesson_of(settings)
    kept = Teacher(load_checkpoint(teacher, dtype="float32").model, DistillConfig(teacher="x", top_k=8))
    batch = lesson.loader(config).batch(0)
    first = sft_loss(model, batch, teacher=kept).total
    kept.model.forward = kept.model.trunk = None         # it must not be asked
    assert torch.equal(sft_loss(model, batch, teacher=kept).total, first)
    parts = [sft_loss(model, part, teacher=kept).total for part in batch.split(1)]
    torch.testing.assert_close(sum(parts), first, rtol=1e-4, atol=1e-4)


def test_a_student_comes_nearer_and_resumes_exactly(settings, teacher, tmp_path):  # noqa: F811
    same = [f"distill.teacher={teacher}", "distill.weight=1", "distill.top_k=16", "loop.checkpoint_every=3"]
    run(settings, "loop.steps=6", *same)
    run(settings, "loop.steps=3", *same, name="halves")
    run(settings, "loop.steps=6", *same, name="halves", resume=True)
    assert_equal(weights_of(tmp_path / "run"), weights_of(tmp_path / "halves"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]


def test_a_teacher_must_speak_the_same_ids(settings, teacher, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match=r"must have the student's tokenizer .* has one of 16,000 ids"):
        run(settings, "loop.steps=1", "distill.teacher=ayllu-mini")
    config, folder = settings(f"distill.teacher={teacher}", "loop.steps=1")
    ready = prepared(config, folder)[0]
    assert ready.distill.model.dim == 48
    assert training_loss(ready, CPU, load_checkpoint(teacher).model, load_checkpoint(teacher).model)


def pretraining(folder, base, teacher, **changes):
    texts = [{"text": "the fox and the river and the stars " * 3} for _ in range(40)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    shape = load_checkpoint(base).config.model_dump(exclude_none=True)
    table = {"name": "n", "out": str(folder / "run"), "folder": str(folder), "tokenizer": str(base), "model": shape,
             "init_from": str(base), "context": 32, "threads": 1, "compile": "off", "samples": [], "eval_tokens": 64,
             "packing": {"kind": "best_fit"}, "distill": {"teacher": str(teacher), "weight": 1.0, "top_k": 16},
             "data": {"sources": [{"path": "texts.jsonl", "language": "en"}]},
             "optim": {"lr": 3e-3, "schedule": {"kind": "constant", "warmup_steps": 0}},
             "loop": {"steps": 6, "batch_size": 4, "micro_batch": 2, "eval_every": 6, "checkpoint_every": 3,
                      "log_every": 1, "precision": "float32"}}
    return build_recipe(PretrainConfig, {**table, **changes}, [], where="a test")


def test_continued_pretraining_learns_from_a_teacher_and_resumes_exactly(tiny_checkpoint, teacher, tmp_path,
                                                                         monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = with_teacher(pretraining(tmp_path, tiny_checkpoint, teacher), tmp_path)
    assert whole.distill.model.dim == 48
    pretrain.pretrain(whole, tmp_path)
    half = whole.model_copy(update={"out": str(tmp_path / "halves")})
    pretrain.pretrain(half.model_copy(update={"loop": half.loop.model_copy(update={"steps": 3})}), tmp_path)
    pretrain.pretrain(half, tmp_path, resume=True)
    assert_equal(weights_of(tmp_path / "run"), weights_of(tmp_path / "halves"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert predict(whole, CPU).state > predict(whole.model_copy(update={"distill": None}), CPU).state


def test_pretraining_with_a_teacher_loses_what_the_formula_says(tiny_checkpoint, teacher, tmp_path):
    """The loss that a run is given, over a packed batch: all of the teacher's share."""
    config = pretraining(tmp_path, tiny_checkpoint, teacher, distill={"teacher": str(teacher), "weight": 0.5})
    ours, bigger = (load_checkpoint(path, dtype="float32").model for path in (tiny_checkpoint, teacher))
    shape = 2, config.context
    ids = torch.randint(3, 300, shape, generator=torch.Generator().manual_seed(0))
    batch = PackedBatch(ids, ids.roll(-1, 1), torch.ones(shape), torch.zeros(shape, dtype=torch.int64),
                        torch.arange(shape[1]).repeat(2, 1), torch.zeros(shape, dtype=torch.bool))
    found = pretrain.training_loss(config, CPU, bigger)(ours, batch).total
    p, q = (model(ids).log_softmax(-1) for model in (bigger, ours))
    plain = F.cross_entropy(q.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    wanted = 0.5 * plain + 0.5 * (p.exp() * (p - q)).sum()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)          # sums of float32 in another order


@pytest.mark.parametrize(("changes", "told"), [
    ({"packing": {"kind": "none"}}, "set packing.kind=best_fit"),
    ({"masks": {"parts": [{"kind": "causal"}, {"kind": "tokens"}]}}, "leave masks out"),
    ({"context": 100_000}, "longer than the teacher's"),
    ({"distill": {"teacher": "ayllu-mini"}}, "rows of ids"), ({"distill": {"teacher": "nowhere"}}, "nowhere")])
def test_pretraining_says_which_teacher_it_can_not_take(tiny_checkpoint, teacher, tmp_path, changes, told):
    with pytest.raises(AylluError, match=told):
        with_teacher(pretraining(tmp_path, tiny_checkpoint, teacher, **changes), tmp_path)


@pytest.mark.slow
def test_a_dry_run_counts_the_teacher(settings, teacher):  # noqa: F811
    found = []
    for changes in ([], [f"distill.teacher={teacher}"]):
        config, folder = settings("loop.steps=2", *changes)
        found.append(dry_run(prepared(config, folder)[0])["predicted_bytes"])
    assert found[1] > 0
