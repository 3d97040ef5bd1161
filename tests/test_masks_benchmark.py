"""The comparison of masks compares what it says: equal mean shares, holes where they are, intervals by hand."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scripts import load_script

from ayllu.config import load_recipe
from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import Moment
from ayllu.data.masks import FillIn, apply, shares
from ayllu.train.pretrain import PretrainConfig

ROOT = Path(__file__).parents[1]
MARKS = Marks(vocab_size=400, bos=1, eos=2, fim=(5, 6, 7, 8))


@pytest.fixture(scope="module")
def study_of_masks():
    return load_script("benchmarks/masks.py")


def test_the_schedule_has_the_fixed_mixture_s_shares_on_average(study_of_masks):
    study = SimpleNamespace(config=load_recipe(PretrainConfig, ROOT / "recipes/masks.toml"))
    fixed, scheduled = (study_of_masks.masks(study, arm) for arm in ("fixed", "scheduled"))
    steps = study.config.loop.steps
    every = np.stack([shares(scheduled, Moment(step)) for step in range(steps + 1)])
    assert every.mean(0) == pytest.approx(shares(fixed, Moment()), abs=1e-9)
    assert every[0][0] == pytest.approx(0.1)
    assert every[-1][0] == pytest.approx(0.9)
    assert [part.kind for part in study_of_masks.masks(study, "causal").parts] == ["causal"]


def test_a_prompt_is_what_training_gave_and_asks_for_the_hole(study_of_masks):
    documents = [torch.arange(10, 150), torch.arange(150, 400)]
    holes, lengths = study_of_masks.cut_holes(documents, 50)
    prompts = study_of_masks.fill_in_prompts(SimpleNamespace(holes=holes, lengths=lengths, marks=MARKS))
    assert set(lengths.tolist()) == set(range(1, study_of_masks.LONGEST_HOLE + 1))
    around = study_of_masks.AROUND
    for hole, n, prompt in zip(holes, lengths.tolist(), prompts, strict=True):
        assert (hole.diff() == 1).all()                  # a stretch of one document
        piece = hole[:1 + 2 * around + n].numpy()
        cuts = SimpleNamespace(integers=lambda a, b, k, n=n: [around, around + n], random=lambda: 1.0)
        example = apply(FillIn(spm=0.0), piece, MARKS, Moment(), cuts)
        assert prompt.tolist() == example.inputs[:len(prompt)].tolist()
        assert example.targets[len(prompt) - 1:len(prompt) - 1 + n].tolist() == hole[1 + around:1 + around + n].tolist()


def test_accuracy_counts_the_tokens_of_holes_alone(study_of_masks):
    documents = [torch.arange(10, 150), torch.arange(150, 400)]
    holes, lengths = study_of_masks.cut_holes(documents, 60)

    def successor(ids):                                  # a model that has learned to count
        return torch.nn.functional.one_hot(ids + 1, 500).float()

    study = SimpleNamespace(holes=holes, lengths=lengths, model=successor)
    assert study_of_masks.accuracy(study, holes[:, :1 + study_of_masks.AROUND]) == 1.0
    study.model = lambda ids: successor(ids + (ids % 2 == 0))            # wrong after every even id, and then so on
    assert 0 < study_of_masks.accuracy(study, holes[:, :1 + study_of_masks.AROUND]) < 0.6


def test_intervals_by_hand(study_of_masks):
    mean, half = study_of_masks.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / math.sqrt(3)))
