"""Distillation: the losses are the plain formulas with their gradients, cached ones equal live ones, and it runs."""

import json

import pytest
import torch
import torch.nn.functional as F
from train.test_sft import assert_equal, chats, lesson_of, run, settings, weights_of  # noqa: F401 - fixtures

from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.save import save_checkpoint
from ayllu.errors import ConfigError
from ayllu.model.llama import Llama
from ayllu.train.distill import DistillConfig, Teacher, divergence, with_rest
from ayllu.train.lesson import prepared
from ayllu.train.plan import dry_run
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


@pytest.mark.slow
def test_a_dry_run_counts_the_teacher(settings, teacher):  # noqa: F811
    found = []
    for changes in ([], [f"distill.teacher={teacher}"]):
        config, folder = settings("loop.steps=2", *changes)
        found.append(dry_run(prepared(config, folder)[0])["predicted_bytes"])
    assert found[1] > 0
