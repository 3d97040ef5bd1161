"""Fine-tuning on conversations: it learns, resumes bit for bit, repeats from its folder, and its losses are exact."""

import json

import pytest
import torch
import torch.nn.functional as F

from ayllu.adapters.lora import fingerprint
from ayllu.checkpoint.load import load_checkpoint
from ayllu.cli.sft import read_sft
from ayllu.config import load_recipe
from ayllu.data.pack_loader import PADDING, PackedBatch
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.parallel import ALONE
from ayllu.train.base import base_model
from ayllu.train.compiled import missing_compiler
from ayllu.train.lesson import prepared
from ayllu.train.loop import accumulate, step
from ayllu.train.losses import plain_loss
from ayllu.train.sft import new_state, sft, training_loss
from ayllu.train.sft_config import SftConfig
from ayllu.train.sft_loss import Noise, answer_loss, divergence, sft_loss

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(bool(missing_compiler(CPU)), reason=str(missing_compiler(CPU)))


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    rows = [{"prompt": f"the fox {i}", "completion": ["the river", "the stars and the bird"][i % 2]} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings(tiny_checkpoint, chats, tmp_path):
    def make(*changes, run="run"):
        words = ["data.template=llama2", "data.held_out=0.2", "context=64", "compile=off", "threads=1",
                 "loop.batch_size=4", "loop.micro_batch=2", "loop.eval_every=5", "loop.precision=float32",
                 "loop.log_every=1", "optim.lr=3e-3", f"out={tmp_path / run}", *changes]
        return read_sft([str(tiny_checkpoint), str(chats), *words])
    return make


def run(settings, *changes, resume=False, name="run"):
    config, folder = settings(*changes, run=name)
    return sft(*prepared(config, folder), folder, resume)


def weights_of(folder):
    return dict(load_checkpoint(folder / "model", dtype="float32").model.named_parameters())


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def lesson_of(settings, *changes):
    config, folder = settings(*changes)
    config, lesson = prepared(config, folder)
    return config, lesson, base_model(config, lesson.source, CPU)[0]


def test_it_learns_keeps_the_best_and_exports_what_chat_needs(settings, tmp_path, tiny_checkpoint):
    before = fingerprint(load_checkpoint(tiny_checkpoint, dtype="float32").model)
    result = run(settings, "loop.steps=80", "optim.schedule.kind=constant", "optim.lr=0.03", "loop.patience=1",
                 'samples=["the fox 1"]')
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = [row["held_out"] for row in rows if "held_out" in row and "final" not in row]
    assert min(held) < held[0] / 2
    stopped = [row for row in rows if row.get("decision") == "stop"]
    assert len(stopped) == 1                             # 40 rows are soon known by heart
    assert result["held_out"] == pytest.approx(min(held), rel=1e-5)          # of the best weights, over all held out
    trained = load_checkpoint(tmp_path / "run" / "model")
    assert "[INST]" in trained.tokenizer.chat_template
    assert trained.generation.eos_ids == (2,)
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["rows"]["kept"] + data["rows"]["kept_held_out"] == 40
    assert data["sources"][0]["documents"] == 40
    texts = [json.loads(line)["texts"][0] for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(text.startswith("the fox 1\n") for text in texts)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "ayllu sft run/config.json" in page
    assert "teach the end of an answer" in page
    base = load_checkpoint(tiny_checkpoint, dtype="float32")
    assert base.licence == trained.licence
    assert fingerprint(base.model) == before             # its file was not trained


def test_a_resume_is_exact(settings, tmp_path):
    same = ["optim.schedule.kind=constant", "neftune=5", "anchor=0.1", "loop.checkpoint_every=3"]
    run(settings, "loop.steps=6", *same)
    run(settings, "loop.steps=3", *same, name="halves")
    run(settings, "loop.steps=6", *same, name="halves", resume=True)
    whole = weights_of(tmp_path / "run")
    assert_equal(whole, weights_of(tmp_path / "halves"))
    with pytest.raises(CheckpointError, match="was trained with data="):
        run(settings, "loop.steps=9", *same, "data.prompt_weight=0.5", resume=True)


@pytest.mark.slow
def test_a_run_repeats_from_its_folder(settings, tmp_path):
    run(settings, "loop.steps=4", "neftune=5", "loop.eval_every=2")
    folder = tmp_path / "run"
    again = load_recipe(SftConfig, folder / "config.json", [f"out={tmp_path / 'again'}"])
    sft(*prepared(again, folder), folder)
    assert_equal(weights_of(folder), weights_of(tmp_path / "again"))
    other = load_recipe(SftConfig, folder / "config.json", ["model.dim=64"])
    with pytest.raises(ConfigError, match="not the shape of"):
        prepared(other, folder)


def test_micro_batches_change_no_gradient(settings):
    config, lesson, model = lesson_of(settings, "data.prompt_weight=0.1", "anchor=0.3")
    with torch.no_grad():
        base = training_loss(config, CPU, model)
        for parameter in model.parameters():
            parameter.add_(0.01)                         # away from the base, so that the anchor pulls
    batch = lesson.loader(config).batch(0)
    found = []
    for rows in (1, 4):
        model.zero_grad()
        loop = config.loop.model_copy(update={"micro_batch": rows})
        total, weight = accumulate(model, batch, base, loop, CPU)
        found.append((total, weight, {n: p.grad.clone() for n, p in model.named_parameters()}))
    (a, n, one), (b, m, four) = found
    assert n == m == batch.weights.sum()
    torch.testing.assert_close(a, b)
    for name in one:                                     # sums of float32 in another order
        torch.testing.assert_close(one[name], four[name], rtol=1e-4, atol=1e-5)


def test_padding_is_left_out_and_changes_no_gradient(settings):
    config, lesson, model = lesson_of(settings, "neftune=0")
    batch = lesson.loader(config).batch(0)
    parts = list(batch.split(2))
    assert max(batch.ends) < 64
    assert [part.trimmed().ids.shape[1] for part in parts] == [max(part.ends) for part in parts]
    assert all((part.document[:, max(part.ends):] == PADDING).all() for part in parts)
    assert all((part.trimmed().document[:, -1] != PADDING).any() for part in parts)
    found = []
    for loss in (training_loss(config, CPU, model), sft_loss):
        model.zero_grad()
        total, _ = accumulate(model, batch, loss, config.loop, CPU)
        found.append((total, [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("changes", [["lora.r=4"], []], ids=["adapter", "all"])
def test_one_graph_serves_rows_of_any_length(settings, changes):
    losses, graphs = [], []
    for kind in ("on", "off"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        config, lesson, model = lesson_of(settings, *changes, f"compile={kind}", "loop.micro_batch=1")
        state = new_state(config, model)
        loss, loader = training_loss(config, CPU, model), lesson.loader(config)
        for n in range(4):
            losses.append(step(state, loader.batch(n), loss, config.loop, config.optim, CPU)["loss"])
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert losses[:4] == pytest.approx(losses[4:], rel=1e-5)
    assert graphs[0] == graphs[3] > 0
    assert len({end for n in range(4) for end in lesson.loader(config).batch(n).ends}) > 1


def test_packed_samples_lose_what_they_lose_alone(settings):
    config, lesson, model = lesson_of(settings)
    batch = lesson.loader(config).batch(0)
    model.train()
    packed = sft_loss(model, batch)
    alone = torch.zeros(())
    for row in range(len(batch)):
        for number in sorted(set(batch.document[row].tolist()) - {PADDING}):
            here = batch.document[row] == number
            logits = model(batch.ids[row][here][None])
            losses = plain_loss(logits, batch.labels[row][here][None]) * batch.weights[row][here]
            alone += losses.sum()
    torch.testing.assert_close(packed.total, alone, rtol=1e-5, atol=1e-4)
    held = lesson.held_out(config)
    rows = list(held.in_order(3))
    mean = sum(sft_loss(model, b).total.item() for b in rows) / sum(b.weights.sum().item() for b in rows)
    assert answer_loss(model, rows, CPU, None, ALONE) == pytest.approx(mean, rel=1e-6)


def test_noise_is_bounded_by_alpha_and_spares_padding():
    document = torch.tensor([[0] * 10 + [1] * 4 + [PADDING] * 2])
    empty = torch.zeros_like(document)
    batch = PackedBatch(empty, empty, empty.float(), document, empty, empty.bool())
    x = torch.zeros(1, 16, 400)
    torch.manual_seed(0)
    added = Noise(5.0)(x, batch)[0]
    for here, length in ((document[0] == 0, 10), (document[0] == 1, 4)):
        bound = 5.0 / (length * 400) ** 0.5
        assert added[here].abs().max() <= bound
        assert added[here].abs().max() > 0.99 * bound
        assert added[here].mean().abs() < 0.05 * bound
    assert not added[document[0] == PADDING].any()


def test_the_anchor_is_the_divergence_from_the_base(settings):
    torch.manual_seed(0)
    h, w, g, v = (torch.randn(*s, requires_grad=True) for s in ((600, 8), (30, 8), (600, 8), (30, 8)))
    found = divergence(h, w, g.detach(), v.detach())
    base, log_p = F.softmax(g @ v.T, -1), F.log_softmax(h @ w.T, -1)
    expected = (base * (base.log() - log_p)).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(torch.autograd.grad(found.sum(), (h, w)), torch.autograd.grad(expected.sum(), (h, w)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    config, lesson, model = lesson_of(settings, "anchor=2")
    batch = lesson.loader(config).batch(0)
    loss = training_loss(config, CPU, model)
    plain = sft_loss(model, batch).total
    torch.testing.assert_close(loss(model, batch).total, plain)              # no distance at the start
    with torch.no_grad():
        model.norm.weight.mul_(1.5)
    assert loss(model, batch).total > sft_loss(model, batch).total + 1


def test_what_does_not_go_together(settings, tmp_path):
    for number, (changes, what) in enumerate((
            (["loop.patience=2", "data.held_out=0"], "nothing is held out"),
            (["context=4096"], "longer than the base's"),
            (["packing.attention=flex"], "needs a GPU"),
            (["parallel.mode=fsdp", "parallel.data=2"], "process"),
            (["adapt.knd=off"], "did you mean 'kind'"))):
        with pytest.raises(ConfigError, match=what):
            run(settings, *changes, name=f"refused-{number}")
    with pytest.raises(ConfigError, match="a model and what it learns from"):
        read_sft(["ayllu-mini"])
    run(settings, "loop.steps=1", "data.held_out=0")
    with pytest.raises(ConfigError, match="holds a run already"):
        run(settings, "loop.steps=1")


def test_steps_follow_from_epochs(settings):
    config, folder = settings("epochs=2")
    config, lesson = prepared(config, folder)
    assert config.loop.steps == round(2 * len(lesson.loader(config).packing) / 4)
