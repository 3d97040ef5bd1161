"""The sampling mathematics against transformers' processors, and the draw against its distribution."""

import math

import pytest
import torch
from pydantic import ValidationError
from transformers.generation import logits_process as hf

from ayllu.errors import RequestError
from ayllu.model.sample import (
    Sampler,
    SamplingParams,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalise_presence,
    penalise_repetition,
    top_logprobs,
    uniform,
)

V = 300


def random_logits(rows=4, vocab=V, seed=0, spread=3.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def rowwise(processor, logits, values):
    """transformers takes one setting per batch, so each row goes alone."""
    return torch.cat([processor(value)(None, row[None]) for value, row in zip(values, logits, strict=True)])


def test_top_k_equals_transformers_with_a_k_per_row():
    logits, k = random_logits(), [1, 5, 299, 1000]
    assert torch.equal(keep_top_k(logits, torch.tensor(k)), rowwise(hf.TopKLogitsWarper, logits, k))


def test_top_k_zero_keeps_all_and_ties_with_the_kth_stay():
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0], [1.0, 2.0, 2.0, 0.0]])
    kept = keep_top_k(logits, torch.tensor([1, 0])).isfinite().sum(-1).tolist()
    assert kept == [2, 4]


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])     # flat rows need the full sort, peaked ones only the head
def test_top_p_equals_transformers(spread):
    logits, p = random_logits(vocab=2000, spread=spread), [0.05, 0.5, 0.9, 0.999]
    assert torch.equal(keep_top_p(logits, torch.tensor(p)), rowwise(hf.TopPLogitsWarper, logits, p))


def test_top_p_of_one_row_leaves_the_others():
    logits = random_logits(rows=2)
    out = keep_top_p(logits, torch.tensor([1.0, 0.3]))
    assert torch.equal(out[0], logits[0])
    assert torch.isinf(out[1]).any()


def test_min_p_equals_transformers():
    logits, p = random_logits(), [0.0, 0.01, 0.2, 1.0]
    assert torch.equal(keep_min_p(logits, torch.tensor(p)), rowwise(hf.MinPLogitsWarper, logits, p))


def test_typical_equals_transformers():
    logits, p = random_logits(), [0.01, 0.3, 0.9, 0.99]
    assert torch.equal(keep_typical(logits, torch.tensor(p)), rowwise(hf.TypicalLogitsWarper, logits, p))


def test_typical_after_another_filter_equals_transformers():
    logits = keep_top_k(random_logits(), torch.tensor([20] * 4))
    p = [0.1, 0.5, 0.9, 0.95]
    assert torch.equal(keep_typical(logits, torch.tensor(p)), rowwise(hf.TypicalLogitsWarper, logits, p))


def test_repetition_penalty_equals_transformers():
    logits, ids = random_logits(), torch.randint(0, V, (4, 50))
    seen = torch.zeros(4, V, dtype=torch.bool).scatter(1, ids, True)
    out = penalise_repetition(logits, seen, torch.full((4, 1), 1.3))
    assert torch.equal(out, hf.RepetitionPenaltyLogitsProcessor(1.3)(ids, logits))
    assert not torch.equal(out, logits)


def test_logit_bias_equals_transformers():
    logits = random_logits(rows=1)
    sampler = one_row(SamplingParams(logit_bias={3: 2.5, 7: -math.inf}))
    processor = hf.SequenceBiasLogitsProcessor([[[3], 2.5], [[7], -math.inf]])
    expected = processor(torch.zeros(1, 1, dtype=torch.long), logits)
    assert torch.equal(sampler.penalise(logits), expected)


def test_presence_and_frequency_count_the_answer():
    counts = torch.tensor([[0.0, 1.0, 3.0]])
    out = penalise_presence(torch.zeros(1, 3), counts, torch.tensor([[0.5]]), torch.tensor([[0.25]]))
    assert out.tolist() == [[0.0, -0.75, -1.25]]


def test_the_whole_chain_equals_transformers():
    settings = SamplingParams(temperature=0.7, top_k=50, top_p=0.9, min_p=0.02, typical_p=0.95, repetition_penalty=1.2)
    logits, prompt = random_logits(rows=1), [3, 5, 9, 5]
    sampler = one_row(settings, prompt)
    ours = sampler.filter(sampler.penalise(logits))
    ids = torch.tensor([prompt])
    chain = [hf.RepetitionPenaltyLogitsProcessor(1.2), hf.TemperatureLogitsWarper(0.7), hf.TopKLogitsWarper(50),
             hf.TopPLogitsWarper(0.9), hf.MinPLogitsWarper(0.02), hf.TypicalLogitsWarper(0.95)]
    theirs = logits
    for processor in chain:
        theirs = processor(ids, theirs)
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    torch.testing.assert_close(ours, theirs)


def test_draw_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, -math.inf, 2.0, -1.0]])
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    ids = draw(logits.expand(20_000, -1), u)
    share = torch.bincount(ids, minlength=5) / 20_000
    torch.testing.assert_close(share, logits[0].softmax(-1), atol=1e-4, rtol=0)
    assert share[2] == 0


def test_draw_at_the_ends_never_takes_what_is_forbidden():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(2, -1)
    assert draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 1]


def test_uniform_is_uniform_and_differs_by_seed_sample_and_step():
    numbers = [uniform(seed, sample, step) for seed in range(10) for sample in range(10) for step in range(100)]
    assert len(set(numbers)) == 10_000
    shares = torch.histc(torch.tensor(numbers), bins=20, min=0, max=1) / 10_000
    assert (shares - 0.05).abs().max() < 0.01
    assert all(0 <= x < 1 for x in numbers)
    pairs = torch.tensor(numbers).reshape(-1, 100)
    assert torch.corrcoef(torch.stack((pairs[:, :-1].flatten(), pairs[:, 1:].flatten())))[0, 1].abs() < 0.05


def test_a_row_draws_the_same_alone_and_in_a_batch():
    settings = [SamplingParams(top_k=10), SamplingParams(temperature=0.5, top_p=0.8), SamplingParams(temperature=0),
                SamplingParams(typical_p=0.5, repetition_penalty=1.5, frequency_penalty=0.5)]
    steps = [random_logits(seed=s) for s in range(20)]
    batch = Sampler(settings, [7, 8, 9, 10], [0] * 4, [[1, 2]] * 4, V, torch.device("cpu"))
    together = torch.stack([batch.choose(logits) for logits in steps])
    for row, params in enumerate(settings):
        alone = Sampler([params], [7 + row], [0], [[1, 2]], V, torch.device("cpu"))
        assert [alone.choose(logits[row:row + 1]).item() for logits in steps] == together[:, row].tolist()


def test_select_keeps_each_rows_own_state():
    settings = [SamplingParams(temperature=0, frequency_penalty=2.0), SamplingParams(temperature=0)]
    logits = torch.zeros(2, V).index_fill(1, torch.tensor([5]), 1.0)
    sampler = Sampler(settings, [0, 0], [0, 0], [[1], [1]], V, torch.device("cpu"))
    assert sampler.choose(logits).tolist() == [5, 5]
    sampler.select([1, 0])
    assert sampler.choose(logits).tolist() == [5, 0]


def test_logprobs_are_of_the_model():
    logits = random_logits(rows=2)
    chosen, values, ids = top_logprobs(logits, torch.tensor([4, 9]), 3)
    expected = logits.log_softmax(-1)
    assert chosen.tolist() == [expected[0, 4], expected[1, 9]]
    assert ids.tolist() == expected.argsort(-1, descending=True)[:, :3].tolist()
    assert torch.equal(values, expected.gather(-1, ids))


def test_logits_that_are_not_finite_are_an_error():
    logits = random_logits(rows=1)
    logits[0, 3] = math.nan
    with pytest.raises(RequestError, match="not finite"):
        one_row(SamplingParams()).choose(logits)


def test_a_bias_outside_the_vocabulary_is_an_error():
    with pytest.raises(RequestError, match="names id 300"):
        one_row(SamplingParams(logit_bias={300: 1.0}))


@pytest.mark.parametrize("bad", [
    {"temperature": -1}, {"temperature": math.nan}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": 2},
    {"typical_p": 0}, {"repetition_penalty": 0}, {"max_tokens": 0}, {"n": 0}, {"stop": ("",)}, {"seed": -1},
    {"n": 3, "temperature": 0}, {"n": 3, "num_beams": 2}, {"logit_bias": {1: math.nan}}, {"topk": 3},
])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        SamplingParams(**bad)


def one_row(params, prompt=(1,)):
    return Sampler([params], [0], [0], [list(prompt)], V, torch.device("cpu"))
