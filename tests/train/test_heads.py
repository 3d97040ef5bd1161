"""Heads learn, resume bit for bit, are written and read again the same; losses and calibration against slow twins."""

import json

import pytest
import torch
import torch.nn.functional as F

import ayllu.train.loop as loop
from ayllu.checkpoint.head_file import open_head
from ayllu.cli.heads import read_head
from ayllu.cli.heads import train_head as command_of_heads
from ayllu.cli.main import run as command
from ayllu.data.label_loader import TextBatch, Texts
from ayllu.errors import CheckpointError, ConfigError, ContextTooLong, DataError, RequestError
from ayllu.model.config import LlamaConfig
from ayllu.model.heads import Classifier, HeadConfig
from ayllu.model.llama import Llama
from ayllu.train.calibrate import temperature, thresholds
from ayllu.train.heads import head_model, slow_lower_layers, train_head
from ayllu.train.heads_lesson import prepared_head
from ayllu.train.heads_loss import balanced, label_loss
from ayllu.train.heads_measure import many_f1, spans
from ayllu.train.labeller import Labeller
from ayllu.train.optim import OptimConfig, build_optimizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rows")
    rows = [(f"the fox {i} {'river' if i % 3 else 'stars'}", i) for i in range(90)]
    files = {
        "single": [{"text": t, "label": "water" if i % 3 else "sky"} for t, i in rows],
        "multi": [{"text": t, "label": ["water"] * bool(i % 3) + ["even"] * (i % 2 == 0)} for t, i in rows],
        "tokens": [{"text": t.split(), "label": ["O", "B-A", "O", "O" if i % 3 else "B-S"]} for t, i in rows],
        "regression": [{"text": t, "label": 5.0 if i % 3 else 1.0} for t, i in rows]}
    for kind, table in files.items():
        (made / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return made


@pytest.fixture
def settings(tiny_checkpoint, folder, tmp_path):
    def make(*changes, kind="single", run="run"):
        return read_head([str(folder / f"{kind}.jsonl"), f"base={tiny_checkpoint}", f"kind={kind}", "threads=1",
                          "loop.precision=float32", "optim.lr=0.02", "optim.schedule.warmup_steps=2", "epochs=6",
                          "loop.batch_size=8", "loop.micro_batch=4", f"out={tmp_path / run}", *changes])
    return make


def trained(settings, *changes, resume=False, **kwargs):
    config, where = settings(*changes, **kwargs)
    return train_head(*prepared_head(config, where), where, resume)


def test_one_command_learns_measures_and_labels(tiny_checkpoint, folder, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train-head", str(folder / "single.jsonl"), "--model", str(tiny_checkpoint), "--epochs", "6",
             "--out", str(out), "optim.lr=0.02", "loop.batch_size=8", "loop.precision=float32", "threads=1", "--json"]
    assert command(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["low"] < 1.0                # so few rows can't show more
    assert found["macro_f1"]["value"] == 1.0
    assert 0.2 < found["majority"]["accuracy"] < 0.8
    assert found["names"] == ["sky", "water"]
    assert command(["classify", str(out), "the fox 7 stars", "the fox 3 river", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [a["labels"] for a in answers] == [["sky"], ["water"]]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi", "tokens", "regression"])
def test_other_kinds_learn(settings, kind):
    found = trained(settings, "class_weights=balanced" if kind != "regression" else "epochs=8", kind=kind)
    answers = Labeller.load(found["head"])(["the fox 1 river", "the fox 3 stars"])
    match kind:
        case "multi":
            assert ["water" in a.labels for a in answers] == [True, False]
            assert found["macro_f1"]["value"] > found["majority"]["macro_f1"]
        case "tokens":
            assert [a.labels for a in answers] == [("O", "B-A", "O", "O"), ("O", "B-A", "O", "B-S")]
            assert found["span_f1"] == 1.0
        case _:
            assert answers[0].value == pytest.approx(5, abs=0.7)
            assert answers[1].value == pytest.approx(1, abs=0.7)
            assert found["mean_absolute_error"]["value"] < found["majority"]["mean_absolute_error"] / 2


@pytest.mark.parametrize("precision", ["float32", pytest.param("autocast", marks=pytest.mark.amx)],
                         ids=["padded", "packed"])
def test_a_resume_gives_the_same_bits(settings, monkeypatch, precision):
    changes = (f"loop.precision={precision}", "dropout=0.1", "word_dropout=0.2", "loop.ema=0.9",
               "layer_decay=0.8", "label_smoothing=0.1", "loop.checkpoint_every=5", "loop.steps=12",
               "loop.eval_every=6")
    whole = trained(settings, *changes, run="whole")
    step, done = loop.step, []

    def broken(*args):
        if len(done) == 7:
            raise RuntimeError("the machine died")
        done.append(1)
        return step(*args)

    monkeypatch.setattr(loop, "step", broken)
    with pytest.raises(RuntimeError, match="died"):
        trained(settings, *changes, run="broken")
    monkeypatch.setattr(loop, "step", step)
    resumed = trained(settings, *changes, run="broken", resume=True)
    one, other = (dict(open_head(found["head"]).build().named_parameters()) for found in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(CheckpointError, match="was trained with"):
        trained(settings, *changes, "loop.batch_size=4", run="broken", resume=True)


def test_a_precision_that_nothing_computes_in_is_said(settings, caplog):
    """Padded texts have no bfloat16 with masters: what is computed instead, and what computes in bfloat16."""
    trained(settings, "native=false", "loop.precision=bf16_masters", "loop.steps=1")
    assert "in float32" in caplog.text
    assert "loop.precision=autocast" in caplog.text
    caplog.clear()
    trained(settings, "native=false", "loop.precision=float32", "loop.steps=1", run="asked")
    assert "loop.precision=autocast" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("learns", ["adapter", "head"])
def test_the_base_stays_and_is_asked_for_again(settings, learns, tiny_checkpoint, monkeypatch):
    found = trained(settings, f"learns={learns}", "lora.r=4", "epochs=2")
    opened = open_head(found["head"])
    assert opened.facts.base == str(tiny_checkpoint.resolve())
    config, where = settings(f"learns={learns}", "lora.r=4")
    config, lesson = prepared_head(config, where)
    model, base = head_model(config, lesson, CPU)
    moves = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "score.weight" in moves
    assert all(name == "score.weight" or ".lora_" in name for name in moves)
    assert len(moves) == (1 if learns == "head" else 1 + 2 * 14)
    assert opened.facts.fingerprint == base
    answer = Labeller.load(found["head"])(["the fox 1 river"])[0]
    assert set(answer.probabilities) == {"sky", "water"}
    (opened.path / "ayllu_head.json").write_text(
        opened.facts.model_copy(update={"fingerprint": "0" * 64}).model_dump_json(), encoding="utf-8")
    with pytest.raises(CheckpointError, match="was trained on another model"):
        Labeller.load(found["head"])


@pytest.mark.slow
def test_transformers_reads_it_and_gives_the_same_logits(settings):
    transformers = pytest.importorskip("transformers")
    found = trained(settings, "attention=causal", "pooling=last", "epochs=1")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(found["head"]).eval()
    assert type(theirs).__name__ == "LlamaForSequenceClassification"
    assert theirs.config.id2label == {0: "sky", 1: "water"}
    ours = open_head(found["head"]).build()
    ids = torch.tensor([[1, 20, 30, 40], [1, 50, 60, 70]])
    with torch.no_grad():
        wanted, logits = theirs(ids[:1]).logits, ours(ids, torch.ones_like(ids, dtype=torch.bool))
    assert torch.allclose(wanted[0], logits[0], atol=1e-5)                    # both float32, sums in other orders
    (open_head(found["head"]).path / "ayllu_head.json").unlink()              # as another tool would have written it
    again = open_head(found["head"])
    assert again.facts.names == ("sky", "water")
    with torch.no_grad():
        assert torch.equal(again.build()(ids, torch.ones_like(ids, dtype=torch.bool)), logits)


def test_a_bidirectional_head_is_not_passed_off_as_one_of_transformers(settings):
    found = trained(settings, "loop.steps=1")
    assert not (open_head(found["head"]).path / "config.json").exists()


def test_texts_past_the_context_need_a_choice(settings, tiny_checkpoint):
    config, where = settings("context=4")
    with pytest.raises(DataError, match=r"longer than 4 tokens: .*single\.jsonl, row \d+: .*--too-long begin"):
        prepared_head(config, where)
    found = trained(settings, "context=6", "data.too_long=ends", "loop.steps=1")
    assert found["cut"]["train"] > 0
    answer = Labeller.load(found["head"])(["the fox and the bird walked along the river"])[0]
    assert answer.cut
    found = trained(settings, "loop.steps=1", run="other")
    with pytest.raises(ContextTooLong, match="text 1 has"):
        Labeller.load(found["head"])(["river " * 200])
    with pytest.raises(RequestError, match="text 1 is empty"):
        Labeller.load(found["head"])([" "])


def test_hidden_tokens_are_not_seen_but_the_first_is():
    model = tiny("single", 2).train()
    ids, labels = torch.tensor([[1, 5, 6, 7]]), torch.tensor([0])
    seen = torch.ones_like(ids, dtype=torch.bool)
    hidden = label_loss(model, TextBatch(ids, seen, labels), hidden=1 - 1e-9).total
    alone = label_loss(model, TextBatch(ids[:, :1], seen[:, :1], labels)).total
    assert hidden.item() == pytest.approx(alone.item(), rel=1e-6)


def test_bad_settings_and_data(settings, tmp_path):
    with pytest.raises(ConfigError, match="word_dropout hides tokens"):
        settings("word_dropout=0.1", "attention=causal")
    with pytest.raises(ConfigError, match="take 110% of the rows"):
        settings("data.test_share=0.6", "data.held_out_share=0.5")
    (tmp_path / "one.csv").write_text("text,label\nx,a\ny,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has 1 label \(a\)"):
        prepared_head(*settings(f"data.path={tmp_path / 'one.csv'}"))
    (tmp_path / "test.csv").write_text("text,label\nx,sky\ny,mud\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.csv, row 3: 'mud'"):
        prepared_head(*settings(f"data.test={tmp_path / 'test.csv'}"))
    with pytest.raises(ConfigError, match="--method 'lorra'"):
        command_of_heads(["x.csv"], method="lorra")


def tiny(kind, n):
    torch.manual_seed(1)
    shape = LlamaConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=16, vocab_size=20)
    return Classifier(Llama(shape), HeadConfig(kind=kind, n_outputs=n, dropout=0))


def test_losses_are_torchs_own():
    ids, seen = torch.randint(20, (4, 3)), torch.ones(4, 3, dtype=torch.bool)
    weights = torch.tensor([1.0, 2.0, 0.5])
    model, labels = tiny("single", 3), torch.tensor([0, 1, 2, 1])
    loss = label_loss(model, TextBatch(ids, seen, labels), weights, 0.0)
    assert (loss.total / loss.weight).item() == pytest.approx(
        F.cross_entropy(model(ids, seen), labels, weights).item(), rel=1e-6)
    assert loss.per_example.sum().item() == pytest.approx(loss.total.item(), rel=1e-6)
    model, marks = tiny("tokens", 3), torch.tensor([[0, -100, 1], [2, 1, -100], [0, 0, 0], [-100, -100, 2]])
    loss = label_loss(model, TextBatch(ids, seen, marks))
    assert loss.weight == 8
    assert (loss.total / loss.weight).item() == pytest.approx(
        F.cross_entropy(model(ids, seen).flatten(0, 1), marks.flatten()).item(), rel=1e-6)
    model, many = tiny("multi", 3), torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    loss = label_loss(model, TextBatch(ids, seen, many), weights)
    assert (loss.total / loss.weight).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(model(ids, seen), many, pos_weight=weights).item(), rel=1e-6)


def test_balanced_weights_make_classes_count_alike():
    assert balanced(Texts([], [0, 0, 0, 1]), 3, "single").tolist() == pytest.approx([2 / 3, 2, 0])
    assert balanced(Texts([[], []], [[1.0, 0.0], [1.0, 1.0]]), 2, "multi").tolist() == [0, 1]


def test_lower_layers_learn_more_slowly():
    model = tiny("single", 2)
    optimizer = build_optimizer(model, OptimConfig())
    slow_lower_layers(optimizer, model, 0.5)
    rate = {id(p): group["plus"] for group in optimizer.param_groups for p in group["params"]}
    assert [rate[id(p)] for p in (model.score.weight, model.body.layers[1].attention.wq.weight,
                                  model.body.layers[0].attention_norm.weight,
                                  model.body.tok_embeddings.weight)] == [1, 0.5, 0.25, 0.125]
    assert len(rate) == len(list(model.parameters()))


def test_temperature_undoes_what_logits_were_multiplied_by():
    torch.manual_seed(0)
    true = torch.randn(4000, 3)
    labels = torch.multinomial(true.softmax(-1), 1)[:, 0]
    assert temperature(true * 4, labels, "single") == pytest.approx(4, rel=0.1)
    yes = torch.bernoulli(true.sigmoid())
    assert temperature(true / 2, yes, "multi") == pytest.approx(0.5, rel=0.1)


def test_a_few_rows_that_are_all_right_make_nobody_certain():
    labels = torch.tensor([0, 1] * 10)
    logits = F.one_hot(labels, 2) * 2.0
    by = temperature(logits, labels, "single")
    assert 0.9 < (logits / by).softmax(-1).max() < 0.99
    multi = F.one_hot(labels, 2).float()
    assert 0.9 < ((multi * 4 - 2) / temperature(multi * 4 - 2, multi, "multi")).sigmoid().max() < 0.99


def test_thresholds_are_the_best_of_all():
    torch.manual_seed(0)
    p, y = torch.rand(40, 3), (torch.rand(40, 3) < 0.3).float()
    y[:, 2] = 0
    found = torch.tensor(thresholds(p, y))
    assert found[2] == 0.5
    for n in range(2):
        best = max(many_f1(y[:, n:n + 1].bool().numpy(), (p[:, n:n + 1] >= cut).numpy()) for cut in p[:, n])
        assert many_f1(y[:, n:n + 1].bool().numpy(), (p[:, n:n + 1] >= found[n]).numpy()) == best


def test_spans():
    assert spans(["B-A", "I-A", "O", "I-B", "B-B", "I-A"]) == {(0, 2, "A"), (3, 4, "B"), (4, 5, "B"), (5, 6, "A")}
