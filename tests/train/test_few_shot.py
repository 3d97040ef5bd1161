"""Few-shot: draws are balanced and nested, prompts score as one by one, calibration does what its papers say, and a run
that was stopped goes on."""

import json

import pytest
import torch

from ayllu.checkpoint.load import load_checkpoint
from ayllu.cli.main import run as command
from ayllu.errors import ConfigError, DataError
from ayllu.model.step import EagerRunner
from ayllu.train import few_shot
from ayllu.train.few_learners import adapter, features, nearest, probe
from ayllu.train.few_prompts import Prompts, batch_calibrated, contextual
from ayllu.train.few_shot import FewShot, Texts, draw, opened, run, summary


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "rows.jsonl"
    table = [{"text": f"fox {i} {'river' if i % 2 else 'stars'}", "label": i % 2} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint, dtype="float32")


def prompts(model, template="{text}\n{label}\n\n"):
    return Prompts(EagerRunner(model.model), model.tokenizer, ("bad", "good"), template)


def test_draws_are_balanced_nested_and_begin_balanced():
    labels = [i % 3 for i in range(60)]
    four, eight = draw(labels, 4, seed=1), draw(labels, 8, seed=1)
    assert sorted(labels[i] for i in four) == [0] * 4 + [1] * 4 + [2] * 4
    assert eight[:12] == four
    assert sorted(labels[i] for i in four[:3]) == [0, 1, 2]
    assert draw(labels, 4, seed=2) != four


def test_labels_are_scored_as_one_by_one(model):
    made = prompts(model)
    context, left = made.shown([("the fox", 1), ("the bird", 0)], 20)
    assert left == 0
    found = made.log_p(["the river", "the stars and the river"], [context, context])
    for n, text in enumerate(("the river", "the stars and the river")):
        slow = []
        for c in range(2):
            whole = [*context, *made.question(text), *made.label(c)]
            with torch.no_grad():
                logp = model.model(torch.tensor([whole[:-1]])).double().log_softmax(-1)[0]
            size = len(made.label(c))
            slow.append(sum(logp[-size + i, id].item() for i, id in enumerate(whole[-size:])))
        wanted = torch.tensor(slow, dtype=torch.float64).log_softmax(-1)
        assert torch.allclose(found[n], wanted, atol=1e-4)                    # float32 through a cache, and without


def test_examples_that_do_not_fit_are_counted(model):
    made = prompts(model)
    ids, left = made.shown([("the fox by the river", i % 2) for i in range(50)], 20)
    assert 0 < left < 50
    assert len(ids) + 20 <= made.room
    assert made.is_cut("river " * 100)
    assert len(made.question("river " * 100)) == made.room // 2
    with pytest.raises(ConfigError, match="should have"):
        prompts(model, "{label} {text}")


def test_calibration_takes_the_bias_away():
    fair = torch.tensor([[0.7, 0.3], [0.3, 0.7]], dtype=torch.float64)
    biased = (fair * torch.tensor([8.0, 1.0])).log().log_softmax(-1)
    assert biased.argmax(-1).tolist() == [0, 0]
    empty = torch.tensor([[8.0, 1.0]], dtype=torch.float64).log().log_softmax(-1)
    assert torch.allclose(contextual(biased, empty).exp(), fair)
    assert batch_calibrated(biased).argmax(-1).tolist() == [0, 1]
    mean = biased.exp().mean(0)
    wanted = biased.exp() / mean
    assert torch.allclose(batch_calibrated(biased).exp(), wanted / wanted.sum(1, keepdim=True))


@pytest.mark.slow
def test_a_probe_is_the_minimum_of_its_loss():
    torch.manual_seed(0)
    x = torch.randn(30, 4)
    labels = (x[:, 0] > 0).long().tolist()
    found = probe(x, labels, 2, x)
    assert (found.argmax(-1) == torch.tensor(labels)).float().mean() > 0.9
    sklearn = pytest.importorskip("sklearn.linear_model")
    scaled = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    # two labels with a row of weights each, of which scikit-learn has the difference: half as strong a decay on that
    theirs = sklearn.LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(scaled, labels)
    assert torch.allclose(found.exp(), torch.tensor(theirs.predict_proba(scaled)), atol=1e-4)


def test_nearest_takes_as_many_of_each_label():
    torch.manual_seed(0)
    among, labels = torch.randn(20, 6), [i % 2 for i in range(20)]
    for near, row in zip(nearest(among[:3] * 2 - among.mean(0), among, labels, 2), range(3), strict=True):
        assert sorted(labels[i] for i in near) == [0, 0, 1, 1]
        assert near[-1] == row                           # the same direction from the mean


def test_an_adapter_learns_and_leaves_the_body_as_it_was(model):
    body = model.model.requires_grad_(False)
    before = {name: p.clone() for name, p in body.named_parameters()}
    ids = [[1, 50 + i % 2 * 100, 7] for i in range(8)]
    found = adapter(body, Texts(ids, [i % 2 for i in range(8)]), 2, Texts(ids, [0] * 8), seed=0)
    assert found.argmax(-1).tolist() == [i % 2 for i in range(8)]
    after = dict(body.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert body.output is not None                       # prompts still need it
    assert features(body, ids).shape == (8, 32)


@pytest.mark.slow
def test_one_command_and_it_goes_on(rows, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    words = ["fewshot", str(rows), "--model", str(tiny_checkpoint), "--shots", "0,2", "--seeds", "2", "--out",
             str(tmp_path / "out"), "--rename", "0=sky", "--rename", "1=water", "--json"]
    monkeypatch.setattr("ayllu.train.few_learners.STEPS", 2)
    assert command(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    methods = {(row["method"], row["k"]): row for row in found["table"]}
    assert set(methods) == {(m, 0) for m in ("random", "random+batch", "random+contextual")} | {
        (m, 2) for m in ("random", "random+batch", "random+contextual", "similar", "similar+batch", "probe", "lora")}
    assert methods["random", 2]["draws"] == 2
    assert methods["similar", 2]["draws"] == 1
    assert (tmp_path / "out" / "fewshot.png").stat().st_size > 10_000
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(lines[:-2]) + "\n" + lines[-1][:20], encoding="utf-8")      # as when it was stopped
    measured, calls = few_shot._measured, []
    monkeypatch.setattr(few_shot, "_measured", lambda *job: calls.append(job) or measured(*job))
    assert command(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["table"] == found["table"]
    assert len(calls) == 2
    assert command([*words[:-1], "--rows", "5"]) == 2
    assert "holds results of other rows or settings" in capsys.readouterr().err


def test_too_few_rows_are_told(rows, tiny_checkpoint):
    with pytest.raises(DataError, match=r"label '[01]' has \d+ rows after \d+ of 40 .* asks for 16 of each"):
        opened(FewShot(model=str(tiny_checkpoint), path=str(rows)))


def test_a_name_for_a_label_that_no_row_has_is_refused(rows, tiny_checkpoint):
    with pytest.raises(DataError, match=r"no row has the label 'good'; there are 0, 1"):
        opened(FewShot(model=str(tiny_checkpoint), path=str(rows), shots=(0,), rename={"0": "sky", "good": "1"}))


def test_zero_shots_need_no_rows_to_draw(rows, tiny_checkpoint, tmp_path):
    lesson = opened(FewShot(model=str(tiny_checkpoint), path=str(rows), shots=(0,), test=str(rows), rows=5))
    found = summary(lesson, run(lesson, tmp_path))
    assert {row["method"] for row in found} == {"random", "random+batch", "random+contextual"}
    assert all(row["draws"] == 1 for row in found)
    for row in found:                                    # one draw, but other texts would give another score
        if 0 < row["accuracy"]["value"] < 1:
            assert row["accuracy"]["low"] < row["accuracy"]["value"] < row["accuracy"]["high"]
