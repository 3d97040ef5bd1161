"""A reward model: it learns which answer is better, resumes bit for bit, loads in transformers, and judges answers."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train.test_prefer import pairs, settings  # noqa: F401 - fixtures
from transformers import AutoModelForSequenceClassification

from ayllu.data.prompts import Prompt
from ayllu.errors import ConfigError
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.labeller import Labeller
from ayllu.train.prefer import prepared
from ayllu.train.prefer_loss import Tally
from ayllu.train.reward_model import ScoreBatch, reward_loss, scores, train_reward
from ayllu.train.rewards import Answered, Reward, Rewards

CPU = torch.device("cpu")


def run(settings, *changes, resume=False, name="run"):  # noqa: F811
    config, folder = settings("method=reward", *changes, run=name)
    config, lesson = prepared(config, folder)
    return config, lesson, train_reward(config, lesson, folder, resume)


def test_it_learns_and_judges(settings, tmp_path, tiny_checkpoint):  # noqa: F811
    config, lesson, done = run(settings, "loop.steps=12", "margin=0.5")
    assert done["held_out_accuracy"] == 1
    assert done["longer_answer_accuracy"] == 0           # the better answers are the short ones here
    judge = Labeller.load(tmp_path / "run" / "head")
    rows = lesson.gathered.held_out
    found = scores(judge.model, rows, config, CPU)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "head", dtype=torch.float32)
    theirs.config.pad_token_id = 0
    with torch.no_grad():
        wanted = [[theirs(torch.from_numpy(a.ids.astype(np.int64))[None]).logits.item() for a in row.answers]
                  for row in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)          # float32 in another order
    loss = reward_loss(judge.model, ScoreBatch(rows).to(CPU), 0.5, Tally())
    by_hand = [-np.log(1 / (1 + np.exp(-(c - r - 0.5)))) for c, r in wanted]
    assert loss.total.item() == pytest.approx(sum(by_hand), rel=1e-3, abs=1e-5)
    ask = Rewards((Reward.of(f"model:{tmp_path / 'run' / 'head'}"),), Tokenizer.load(tiny_checkpoint))
    answers = [Answered(Prompt(tuple(a.ids[:a.start]), [], {}, ""), "", tuple(a.ids[a.start:]))
               for row in rows for a in row.answers]
    np.testing.assert_allclose(np.array(ask(answers)).reshape(-1, 2), found, rtol=1e-4, atol=1e-5)


def test_an_adapter_with_its_head_resumes_and_names_its_base(settings, tmp_path):  # noqa: F811
    same = ["lora.r=4", "optim.lr=0.02", "loop.checkpoint_every=3"]
    run(settings, "loop.steps=6", *same)
    run(settings, "loop.steps=3", *same, name="halves")
    run(settings, "loop.steps=6", *same, name="halves", resume=True)
    for file in ("score.safetensors", "adapter/adapter_model.safetensors"):
        one, two = (load_file(tmp_path / name / "head" / file) for name in ("run", "halves"))
        for name in one:
            assert torch.equal(one[name], two[name]), name
    config, lesson, _ = run(settings, "loop.steps=1", *same, name="again")
    found = scores(Labeller.load(tmp_path / "run" / "head").model, lesson.gathered.held_out, config, CPU)
    assert (found[:, 0] > found[:, 1]).mean() > 0.8


def test_what_a_reward_model_can_not_be(settings, tmp_path, tiny_checkpoint):  # noqa: F811
    for changes, what in ((["method=reward", "beta=1"], "has no beta"), (["margin=1"], "is for method=reward")):
        with pytest.raises(ConfigError, match=what):
            settings(*changes)
    run(settings, "loop.steps=1")
    other = Tokenizer.load(tiny_checkpoint)
    other.__dict__["fingerprint"] = "another"
    with pytest.raises(ConfigError, match="another tokenizer"):
        Rewards((Reward.of(f"model:{tmp_path / 'run' / 'head'}"),), other)
