"""GRPO: the engine reads what is trained, the loss is the paper's, a resume is exact, and rewards rise."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ayllu.cli.sft import read_tuning
from ayllu.data.prompts import Prompt
from ayllu.errors import ConfigError, DataError, TrainingDiverged
from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.base import base_model
from ayllu.train.grpo import grpo, prepared
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.grpo_loss import advantages, clipped, grpo_loss, k3
from ayllu.train.prefer_loss import Tally
from ayllu.train.rewards import Answered, Reward, Rewards, last_number
from ayllu.train.rollouts import Rollouts
from ayllu.train.sft import new_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Prompts, and beside them a reward: the share of small letters."""
    folder = tmp_path_factory.mktemp("prompts")
    code = ("def share(prompt, completion, row):\n"
            "    return sum('a' <= c <= 'z' for c in completion) / max(len(completion), 1)\n")
    (folder / "letters_of_answers.py").write_text(code, encoding="utf-8")
    path = folder / "prompts.jsonl"
    rows = [{"prompt": f"the fox {i}", "answer": str(i)} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return Tokenizer.load(tiny_checkpoint)


@pytest.fixture
def settings(tiny_checkpoint, prompts, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(prompts.parent)

    def make(*changes, run="run", rewards=("letters_of_answers:share",)):
        words = ["data.template=plain", "data.held_out=0.2", "context=64", "threads=1", "loop.batch_size=16", "group=4",
                 "max_tokens=8", "loop.micro_batch=8", "loop.eval_every=50", "loop.precision=float32",
                 "loop.log_every=1", "optim.schedule.kind=constant", f"out={tmp_path / run}", *changes]
        given = {"rewards": [Reward.of(text).model_dump() for text in rewards]}
        return read_tuning(GrpoConfig, [str(tiny_checkpoint), str(prompts), *words], "", given)
    return make


def begun(settings, *changes):
    config, folder = settings(*changes)
    config, lesson = prepared(config, folder)
    model = new_state(config, base_model(config, lesson.source, CPU)[0]).model
    stops = tuple(range(2, 90))                          # so that answers end at different lengths
    return config, Rollouts(config, model, lesson.gathered.train, Rewards(config.rewards, lesson.tokenizer),
                            lesson.tokenizer, stops, Tally(), None)


def test_the_engine_reads_the_parameters_that_are_trained(settings):
    rollouts = begun(settings, "lora.r=4")[1]
    model, engine = rollouts.answering.model, rollouts.answering.engine
    assert engine.runner.model is model
    ids, greedy = (1, 20, 30, 40), SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, logprobs=0)
    before = rollouts.answering([ids], [greedy])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_()
    after = rollouts.answering([ids], [greedy])
    assert after != before
    slow = generate(model.eval(), [list(ids)], greedy, (2,))[0][0]
    assert after[0][0][0] == list(slow.ids)


def test_advantages_compare_within_a_group():
    rewards = torch.tensor([1.0, 0.0, 0.0, 3.0, 5.0, 5.0, 5.0, 5.0])
    found = advantages(rewards, 4, "grpo").numpy()
    first = rewards[:4].numpy()
    np.testing.assert_allclose(found[:4], (first - first.mean()) / (first.std(ddof=1) + 1e-4), rtol=1e-5)
    assert not found[4:].any()
    np.testing.assert_allclose(advantages(rewards, 4, "dr_grpo")[:4], first - first.mean(), rtol=1e-6)


def test_clipping_and_the_estimate_of_kl_are_the_papers():
    rng = np.random.default_rng(0)
    new, old, base, worth = (rng.normal(size=200) for _ in range(4))
    config = GrpoConfig.model_validate({"name": "x", "out": "x", "base": "x", "data": {"sources": [{"path": "x"}]},
                                        "rewards": [{"kind": "exact"}], "clip": 0.2, "clip_high": 0.28})
    ratio = np.exp(new - old)
    wanted = [-min(r * a, max(min(r, 1.28), 0.8) * a) for r, a in zip(ratio, worth, strict=True)]
    tally = Tally()
    tensors = [torch.from_numpy(x) for x in (new, old, worth)]
    torch.testing.assert_close(clipped(*tensors, config, tally), torch.tensor(wanted, dtype=torch.float64))
    cut = [(r > 1.28 and a > 0) or (r < 0.8 and a < 0) for r, a in zip(ratio, worth, strict=True)]
    assert tally.row()["clipped"] == pytest.approx(np.mean(cut))
    np.testing.assert_allclose(k3(tensors[0], torch.from_numpy(base)), np.exp(base - new) - (base - new) - 1, rtol=1e-9)
    assert (k3(tensors[0], torch.from_numpy(base)) >= 0).all()


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo"])
def test_the_first_update_follows_the_policy_gradient(settings, variant):
    config, rollouts = begun(settings, f"variant={variant}")
    model = rollouts.answering.model
    drawn = rollouts.batch(0)
    assert len({one.answer.size for one in drawn.drawn}) > 2
    scored = drawn.to(CPU)
    assert scored.advantages.abs().max() > 0.1
    model.zero_grad()
    grpo_loss(model, scored, config, tally := Tally()).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert tally.row()["engine_gap"] < 1e-4              # float32 in another order
    model.zero_grad()
    for one in drawn.drawn:                              # plain REINFORCE, one answer after the other
        ids = torch.from_numpy(one.answer.ids.astype(np.int64))
        log_p = model(ids[None, :-1])[0].log_softmax(-1)
        chosen = log_p[range(one.answer.start - 1, len(ids) - 1), ids[one.answer.start:]]
        (-one.advantage * chosen.sum() / (one.answer.size if variant == "grpo" else config.max_tokens)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["autocast", "bf16_masters"])
def test_low_precision_draws_from_the_model_in_training(settings, precision):
    """Products are rounded to bfloat16 on both sides, and in other orders: 0.05 is what training allows."""
    config, rollouts = begun(settings, f"loop.precision={precision}")
    drawn = rollouts.batch(0)
    assert all(one.answer.size for one in drawn.drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grpo_loss(rollouts.answering.model, drawn.to(CPU), config, tally := Tally())
    assert 0 < tally.row()["engine_gap"] < 0.02


def test_answers_of_another_model_are_not_learned_from(settings):
    config, rollouts = begun(settings)
    drawn = rollouts.batch(0)
    with torch.no_grad():
        for parameter in rollouts.answering.model.parameters():
            parameter.mul_(1.1)
    with pytest.raises(TrainingDiverged, match="drawn from another model"):
        grpo_loss(rollouts.answering.model, drawn.to(CPU), config, Tally())


def test_a_resume_is_exact_also_between_updates_of_the_same_answers(settings, tmp_path):
    same = ["updates=2", "kl=0.05", "lora.r=4", "lora.lora_dropout=0.1", "optim.lr=0.02", "loop.checkpoint_every=3"]

    def run(steps, name, resume=False):
        config, folder = settings(*same, f"loop.steps={steps}", run=name)
        return grpo(*prepared(config, folder), folder, resume)

    run(6, "run")
    run(3, "halves")
    done = run(6, "halves", resume=True)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("run", "halves"))
    for name in one:
        assert torch.equal(one[name], two[name]), name
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "clipped" in row]
    assert ["reward" in row for row in steps] == [True, False] * 3           # drawn anew every second step
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[-1]["kl"] > 0
    assert done["answers"] == 6 * 16


def test_rewards_rise(settings, tmp_path):
    config, folder = settings("loop.steps=20", "optim.lr=0.05", "optim.schedule.warmup_steps=2", "loop.batch_size=32",
                              "group=8", "max_tokens=6", "loop.micro_batch=32")
    done = grpo(*prepared(config, folder), folder)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.15
    assert done["held_out_reward_gain_low"] > 0


def answered(text, **row):
    prompt = Prompt((1,), [{"role": "user", "content": "?"}], row, "f, row 1")
    return Answered(prompt, text, tuple(range(len(text.split()))))


def test_rewards_that_are_built_in(tmp_path, monkeypatch, tokenizer):
    exact = Rewards((Reward.of("exact"),), tokenizer)
    assert exact([answered("3 and 4 make 1,234.5", answer="#### 1234.50")]) == [1]
    assert exact([answered("1235", answer=1234)]) == [0]
    assert exact([answered("none", answer=1)]) == [0]
    with pytest.raises(DataError, match=r"f, row 1: .*needs a column `answer`"):
        exact([answered("1")])
    with pytest.raises(DataError, match="holds no number"):
        exact([answered("1", answer="one")])
    assert last_number("-7 or 2,000") == 2000
    assert last_number("it is -7.") == -7
    both = Rewards((Reward.of("regex:[a-z]+ end"), Reward(kind="length", value="4", weight=2.0)), tokenizer)
    assert both([answered(" the end\n")]) == [1 + 2 * 0.5]
    code = "def shout(prompt, completion, row):\n    return completion.isupper() * row['w']\n"
    (tmp_path / "loudness.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Rewards((Reward.of("loudness:shout"),), tokenizer)([answered("YES", w=3)]) == [3]


@pytest.mark.parametrize(("reward", "what"), [
    ("nothing", "should be exact"), ("no_such:function", "can't be imported"), ("json:nothing", "can't be imported"),
    ("regex:(", "no regular expression")])
def test_rewards_that_can_not_be(reward, what, tokenizer):
    with pytest.raises(ConfigError, match=what):
        Rewards((Reward.of(reward),), tokenizer)


def test_what_does_not_go_together(settings):
    for changes, what in ((["loop.batch_size=6"], "a multiple of group=4"), (["max_tokens=64"], "no room for a prompt"),
                          (["adapt.kind=plateau"], "leave adapt.kind at off"),
                          (["quant=nf4", "lora.r=4"], "leave quant"),
                          (["loop.patience=2"], "there is a reward")):
        with pytest.raises(ConfigError, match=what):
            settings(*changes)
    config, folder = settings("context=12")
    with pytest.raises(DataError, match=r"prompts.jsonl, row \d+: a prompt of"):
        prepared(config, folder)


@pytest.mark.slow
def test_the_bundled_model_learns_what_is_rewarded(tmp_path, monkeypatch):
    """A toy that takes a minute: words that begin with t, which are a fifth of a story's words."""
    code = ("def share(prompt, completion, row):\n    words = completion.lower().split()\n"
            "    return sum(word.startswith('t') for word in words) / max(len(words), 1)\n")
    (tmp_path / "words_with_t.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    starts = [f"Once upon a time there was a {who} who {what}" for who in ("fox", "girl", "king", "bird", "boy", "dog")
              for what in ("liked", "wanted", "found", "saw", "lived")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": s}) + "\n" for s in starts), encoding="utf-8")
    words = ["data.template=plain", "data.held_out=0.25", "context=128", "loop.batch_size=32", "group=8",
             "max_tokens=20", "loop.micro_batch=32", "loop.steps=25", "loop.eval_every=100", "lora.r=8",
             "optim.lr=5e-3", "loop.log_every=1", f"out={tmp_path / 'run'}"]
    config, folder = read_tuning(GrpoConfig, ["ayllu-mini", str(tmp_path / "prompts.jsonl"), *words], "",
                                 {"rewards": [Reward.of("words_with_t:share").model_dump()]})
    done = grpo(*prepared(config, folder), folder)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    print(done["held_out_reward_before"], done["held_out_reward_after"], done["seconds"], rewards)
    assert np.mean(rewards[-5:]) > 2 * np.mean(rewards[:5])
    assert done["held_out_reward_gain_low"] > 0
    assert max(row["engine_gap"] for row in rows if "engine_gap" in row) < 0.05
