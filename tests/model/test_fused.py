"""The fused runner against its slow twin, the eager one."""

import copy

import pytest
import torch

from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig, RopeScaling, TransformerConfig
from ayllu.model.fused import FusedRunner, why_not_fused
from ayllu.model.generate import generate
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.sample import SamplingParams
from ayllu.model.score import score_candidates
from ayllu.model.step import Batch, EagerRunner
from ayllu.model.transformer import Transformer

SHAPE = {"dim": 48, "n_layers": 3, "n_heads": 6, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 80, "vocab_size": 101,
         "max_context": 256}
FAMILIES = {
    "llama": {}, "multi-head": {"n_kv_heads": 6}, "multi-query": {"n_kv_heads": 1}, "tied": {"tie_embeddings": True},
    "qwen2": {"qkv_bias": True, "sliding_window": 7, "first_sliding_layer": 1}, "mistral": {"sliding_window": 7},
    "all biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True}, "wide heads": {"head_dim": 24},
    "dynamic": {"rope_scaling": RopeScaling(kind="dynamic", factor=4, original_context=16)},
    "yarn": {"rope_scaling": RopeScaling(kind="yarn", factor=4, original_context=16)},
    "longrope": {"rope_scaling": RopeScaling(kind="longrope", factor=4, original_context=16, short_factor=(1,) * 4,
                                             long_factor=(1, 1.5, 2, 4))},
}


def pair(dtype=torch.float32, **fields):
    """Two runners over equal weights, large enough that the logits have a standard deviation of about 1 or more."""
    config = LlamaConfig(**{**SHAPE, **fields})
    model = Llama(config).eval()
    initialise(model, config.n_layers, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(12 if name in ("output.weight", "tok_embeddings.weight") else 6)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            else:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model = model.to(dtype)
    return EagerRunner(model), FusedRunner(copy.deepcopy(model))


def rows(*lengths):
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 101, (n,), generator=generator).tolist() for n in lengths]


@torch.inference_mode()
def logits_of(runner, prompts, then):
    """Logits after a prompt (rows filled on the left), after single tokens, after several at once, and after one."""
    longest = max(len(p) for p in prompts)
    padding = [longest - len(p) for p in prompts]
    cache = runner.new_cache(padding, longest)
    ids = torch.tensor([[0] * n + p for n, p in zip(padding, prompts, strict=True)])
    return torch.stack([runner.step(Batch(part, cache)) for part in (ids, *then.split([1, 1, 5, 1, 30, 1, 1], dim=1))])


@pytest.mark.parametrize("lengths", [(11,), (9, 9, 9), (3, 20, 11)], ids=["one", "equal", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_equals_the_eager_runner(family, lengths):
    """Sums are taken in another order, nothing else differs: 1e-4 of the logits' deviation, as against transformers."""
    slow, fast = pair(**FAMILIES[family])
    then = torch.randint(0, 101, (len(lengths), 40), generator=torch.Generator().manual_seed(3))
    expected = logits_of(slow, rows(*lengths), then)
    assert expected.std() >= 1
    difference = (logits_of(fast, rows(*lengths), then) - expected).abs().max()
    assert difference <= 1e-4 * expected.std()


@pytest.mark.parametrize("lengths", [(11,), (3, 20, 11)], ids=["one", "padded"])
def test_bfloat16_is_as_near_to_float32_as_the_eager_runner(lengths):
    """bfloat16 keeps 8 bits, so two orders of rounding differ; what counts is how far each is from the truth."""
    slow, fast = pair(torch.bfloat16)
    true = EagerRunner(copy.deepcopy(slow.model).float())
    then = torch.randint(0, 101, (len(lengths), 40), generator=torch.Generator().manual_seed(3))
    expected = logits_of(true, rows(*lengths), then)
    by_slow, by_fast = (logits_of(r, rows(*lengths), then).float() for r in (slow, fast))
    slow_error, fast_error = ((x - expected).square().mean().sqrt() for x in (by_slow, by_fast))
    assert fast_error <= 1.25 * slow_error
    assert fast_error <= 0.1 * expected.std()


def test_greedy_ids_are_equal():
    slow, fast = pair()
    params = SamplingParams(temperature=0, max_tokens=100)
    prompts = rows(5, 17, 30)
    assert [o[0].ids for o in generate(fast, prompts, params)] == [o[0].ids for o in generate(slow, prompts, params)]


def test_samples_and_rows_that_leave_are_equal():
    slow, fast = pair()
    params = SamplingParams(temperature=1.0, seed=5, n=3, max_tokens=60, stop_ids=tuple(range(8)))
    ids = [[[o.ids for o in n] for n in generate(r, rows(5, 17), params)] for r in (slow, fast)]
    assert ids[0] == ids[1]
    assert len({len(x) for n in ids[0] for x in n}) > 1                       # some rows did leave early


def test_scores_are_equal():
    slow, fast = pair()
    joint = [[*rows(9)[0], 5], [*rows(9)[0], 6, 7, 8]]
    found = [[s.logprob for s in score_candidates(r, rows(9)[0], joint)] for r in (slow, fast)]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_prompt_in_parts_equals_one_pass(monkeypatch):
    _, fast = pair()
    ids = torch.tensor(rows(100))
    with torch.inference_mode():
        whole = fast.logits(fast.hidden(Batch(ids, fast.new_cache([0], 100))))
        monkeypatch.setattr("ayllu.model.step.CHUNK", 17)
        parts = fast.logits(fast.hidden(Batch(ids, fast.new_cache([0], 100))))
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", [{}, {"tie_embeddings": True, "qkv_bias": True}])
def test_weights_come_back_bit_for_bit(dtype, fields):
    slow, fast = pair(dtype, **fields)
    back = fast.give_back()
    expected, found = slow.model.state_dict(), back.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(p.requires_grad for p in back.parameters())
    ids = torch.tensor(rows(12))
    assert torch.equal(back(ids), slow.model(ids))
    with pytest.raises(ConfigError, match="gave its weights back"):
        fast.give_back()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_held_once(dtype):
    """Together, what the modules keep and what the runner took are the model's size (here the head is not tied)."""
    config = LlamaConfig(**SHAPE)
    model = Llama(config).to(dtype).eval()
    FusedRunner(model)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()
                if p.device.type == "cpu"}
    packed = sum(p.numel() * p.element_size() for p in model.parameters() if p.device.type == "meta")
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    assert sum(storages.values()) + packed == total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_runner_that_shares_leaves_the_model_usable(dtype):
    slow, _ = pair(dtype, qkv_bias=True)
    model = copy.deepcopy(slow.model)
    with torch.inference_mode():                         # as the drop-in `generate` makes it
        FusedRunner(model, shares=True)
    ids = torch.tensor(rows(12))
    assert torch.equal(model(ids), slow.model(ids))
    model(ids).float().square().mean().backward()        # and trainable
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
        expected = model(ids)[0, -1]
        addresses = [p.data_ptr() for p in model.parameters()]
        again = FusedRunner(model, shares=True)
        found = again.step(Batch(ids, again.new_cache([0], 12)))[0]
    assert [p.data_ptr() for p in model.parameters()] == addresses            # the second one copied nothing
    assert (found - expected).abs().max() <= (1e-4 if dtype == torch.float32 else 0.05) * expected.std()
    assert (expected - slow.model(ids)[0, -1]).abs().max() > 0.1 * expected.std()


def test_what_cannot_run_fused_says_why():
    shape = {**SHAPE, "n_kv_heads": 6}
    assert "Llama family" in str(why_not_fused(Transformer(TransformerConfig(**shape))))
    model = Llama(LlamaConfig(**SHAPE))
    assert why_not_fused(model) is None
    assert "float16" in str(why_not_fused(copy.deepcopy(model).half()))
    with torch.device("meta"):
        assert "meta" in str(why_not_fused(Llama(LlamaConfig(**SHAPE))))
    model.layers[1].attention.wq = torch.nn.Sequential(model.layers[1].attention.wq)
    with pytest.raises(ConfigError, match=r"layers\.1\.attention\.wq was replaced.*runner='eager'"):
        FusedRunner(model)
