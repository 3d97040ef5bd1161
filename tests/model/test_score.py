"""Scores of candidates against plain sums over the whole model, without a cache and one sequence at a time."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ayllu.errors import ContextTooLong, RequestError
from ayllu.model.score import score_candidates

_spec = importlib.util.spec_from_file_location("for_generate", Path(__file__).parent / "test_generate.py")
_there = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_there)


def total(model, ids, start):
    """Sum of log p of ids[start:], each given all before it."""
    with torch.inference_mode():
        logp = model(torch.tensor([ids]))[0].double().log_softmax(-1)
    return sum(logp[i - 1, ids[i]].item() for i in range(start, len(ids)))


@pytest.mark.parametrize("fields", [{}, {"sliding_window": 4}])
def test_candidates_of_different_lengths(fields):
    model = _there.small_model(**fields)
    prompt = [1, 5, 9, 7, 30]
    tails = [[3], [3, 4], [50, 60, 70, 80], [9]]
    scores = score_candidates(model, prompt, [prompt + tail for tail in tails])
    for score, tail in zip(scores, tails, strict=True):
        assert score.logprob == pytest.approx(total(model, prompt + tail, len(prompt)), abs=1e-4)
        assert (score.n_tokens, score.is_merged) == (len(tail), False)


def test_dynamic_positions_are_those_of_each_text_alone():
    """Past the original context the rotation depends on a text's own length, not on its neighbours'."""
    model = _there.small_model(rope_scaling={"kind": "dynamic", "factor": 4.0, "original_context": 8})
    prompt = list(range(1, 7))
    tails = [[3], [3, 4, 5, 6, 7, 8]]
    together = score_candidates(model, prompt, [prompt + tail for tail in tails])
    alone = [score_candidates(model, prompt, [prompt + tail])[0] for tail in tails]
    assert [s.logprob for s in together] == pytest.approx([s.logprob for s in alone], abs=1e-5)


def test_single_tokens_sum_to_one():
    model, prompt = _there.small_model(), [1, 5, 9]
    scores = score_candidates(model, prompt, [[*prompt, i] for i in range(101)])      # several passes
    assert sum(2.718281828459045**score.logprob for score in scores) == pytest.approx(1, abs=1e-4)


def test_a_candidate_that_merges_with_the_end_of_the_prompt():
    model, prompt = _there.small_model(), [1, 5, 9, 7]
    joint = [[1, 5, 40, 41], [1, 5, 9, 7, 3], [1, 77]]
    scores = score_candidates(model, prompt, joint)
    expected = [total(model, joint[0], 2) - total(model, prompt, 2), total(model, joint[1], 4),
                total(model, joint[2], 1) - total(model, prompt, 1)]
    assert [s.logprob for s in scores] == pytest.approx(expected, abs=1e-4)
    assert [s.is_merged for s in scores] == [True, False, True]
    assert [s.n_tokens for s in scores] == [2, 1, 1]


@pytest.mark.parametrize(("prompt", "joint", "error", "words"), [
    ([1, 2], [], RequestError, "no candidates"),
    ([1, 2], [[1, 2]], RequestError, "adds nothing"),
    ([1, 2], [[3, 2]], RequestError, "first token"),
    ([1, 2], [[1, 2, 101]], RequestError, "id 101"),
    ([1, 2], [[1, 2] + [3] * 300], ContextTooLong, "302 tokens.*256"),
])
def test_what_cannot_be_scored_is_refused(prompt, joint, error, words):
    with pytest.raises(error, match=words):
        score_candidates(_there.small_model(), prompt, joint)
