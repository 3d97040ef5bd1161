"""The parity criterion can fail: each of these small faults is seen by it, on the families where it matters."""

from dataclasses import dataclass
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from parity.pairs import TEXT, TOLERANCE, difference, pair, random_ids

from ayllu.model.attend import Causal, sdpa
from ayllu.model.llama import FeedForward, Llama, RMSNorm, Rope

CONFIG_MUTANTS = [                                       # (model, what is wrong in its config)
    ("llama-2-7b", {"rope_theta": 10_500.0}),
    ("code-llama-7b", {"rope_theta": 10_000.0}),
    ("llama-2-7b", {"norm_eps": 1e-6}),
    ("llama-1-7b", {"norm_eps": 1e-5}),
    ("qwen2-7b", {"norm_eps": 2e-6}),
    ("llama-3.1-8b", {"rope_scaling": None}),
    ("llama-3.1-8b", {"rope_scaling.factor": 32.0}),
    ("llama-3.2-1b", {"rope_scaling.high_freq_factor": 5.0}),
    ("llama-3.2-1b", {"rope_scaling.original_context": 17}),
    ("mistral-7b-v0.1", {"sliding_window": None}),
    ("mistral-7b-v0.1", {"sliding_window": 7}),
    ("mistral-7b-v0.1", {"sliding_window": 9}),
    ("qwen2-7b-sliding", {"first_sliding_layer": 0}),
    ("qwen2-7b-sliding", {"first_sliding_layer": 2}),
    ("linear", {"rope_scaling.factor": 4.1}),
    ("dynamic", {"rope_scaling.factor": 2.1}),
    ("dynamic", {"rope_scaling.original_context": 15}),
    ("yarn", {"rope_scaling.attention_factor": 1.0}),
    ("yarn", {"rope_scaling.kind": "linear"}),
    ("yarn-betas", {"rope_scaling.truncate": False}),
    ("yarn-betas", {"rope_scaling.beta_slow": 1.0}),
    ("yarn-not-truncated", {"rope_scaling.beta_fast": 2.5}),
]


@pytest.mark.parametrize(("name", "changes"), CONFIG_MUTANTS, ids=lambda x: str(x))
def test_a_wrong_config_is_seen(name, changes):
    both = pair(name)
    assert_seen(both, rebuilt(both.ours, with_changes(both.ours.config, changes)))


@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3.1-8b", "qwen2-0.5b"])
def test_the_unchanged_model_is_not_a_mutant(name):
    both = pair(name)
    with torch.inference_mode():
        assert fault(both, rebuilt(both.ours, both.ours.config)) < TOLERANCE


def interleaved(self, x):
    a, b = x[..., ::2], x[..., 1::2]
    c, s = self.cos.chunk(2, dim=-1)[0], self.sin.chunk(2, dim=-1)[0]
    return torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)


def swapped_gate(self, x):
    return self.w2(F.silu(self.w3(x)) * self.w1(x))


def gelu_gate(self, x):
    return self.w2(F.gelu(self.w1(x)) * self.w3(x))


def norm_without_eps_inside(self, x):
    return self.weight * x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)


def norm_with_centred_mean(self, x):
    x = x - x.mean(-1, keepdim=True)
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def queries_turned_backwards(self, x):
    """Turning all backwards would be the same model with the features' signs changed; so queries (32 heads) alone."""
    a, b = x.chunk(2, dim=-1)
    sign = -1 if x.shape[2] == 32 else 1
    return x * self.cos + sign * torch.cat((-b, a), dim=-1) * self.sin


METHOD_MUTANTS = [
    (Rope, "__call__", interleaved), (Rope, "__call__", queries_turned_backwards),
    (FeedForward, "forward", swapped_gate), (FeedForward, "forward", gelu_gate),
    (RMSNorm, "forward", norm_without_eps_inside), (RMSNorm, "forward", norm_with_centred_mean)]


@pytest.mark.parametrize(("owner", "method", "wrong"), METHOD_MUTANTS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_formula_is_seen(owner, method, wrong):
    both = pair("llama-3-8b")
    with mock.patch.object(owner, method, wrong):
        assert_seen(both, both.ours)


@dataclass(frozen=True)
class Wrong:
    """Attention with one fault."""

    fault: str

    def __call__(self, q, k, v):
        H, K, E, T = q.shape[2], k.shape[2], q.shape[3], q.shape[1]
        if self.fault == "unscaled":
            q = q * E**0.5
        if self.fault == "scaled by the width":
            q = q * (E**0.5 / (H * E)**0.5)
        if self.fault == "heads tiled":                  # query head h reads key/value head h mod K
            order = torch.arange(H).reshape(H // K, K).T.flatten()
            return Causal()(q[:, :, order], k, v)[:, :, order.argsort()]
        if self.fault == "sees one ahead":
            mask = torch.ones(T, T).tril(1).bool()
            return sdpa(q, k, v, mask=mask)
        return Causal()(q, k, v)


@pytest.mark.parametrize("fault", ["unscaled", "scaled by the width", "heads tiled", "sees one ahead"])
def test_wrong_attention_is_seen(fault):
    both = pair("llama-3-8b")
    with torch.inference_mode():
        right = both.ours(random_ids(2, TEXT), None, [Wrong("none")] * 3)
        assert difference(right, both.theirs(random_ids(2, TEXT)).logits) < TOLERANCE
    assert_seen(both, lambda ids: both.ours(ids, None, [Wrong(fault)] * 3))


@pytest.mark.parametrize("part", ["norm.weight", "layers.2.ffn_norm.weight", "layers.0.attention.wk.bias",
                                  "layers.1.attention.wo.weight"])
def test_a_part_with_neutral_weights_is_seen(part):
    both = pair("qwen2-7b")
    model = rebuilt(both.ours, both.ours.config)
    weight = model.get_parameter(part)
    with torch.no_grad():
        weight.copy_(torch.ones_like(weight) if "norm" in part else torch.zeros_like(weight))
    assert_seen(both, model)


def fault(both, model):
    ids = random_ids(2, TEXT)
    return difference(model(ids), both.theirs(ids).logits)


def assert_seen(both, model):
    with torch.inference_mode():
        found = fault(both, model)
    assert found > 3 * TOLERANCE, f"this fault moves the logits by {found:.1e} standard deviations only"


def with_changes(config, changes):
    table = config.model_dump()
    for key, value in changes.items():
        *path, leaf = key.split(".")
        target = table
        for part in path:
            target = target[part]
        target[leaf] = value
    return type(config).model_validate(table)


def rebuilt(model, config):
    """Another model with the same weights."""
    other = Llama(config).eval()
    other.load_state_dict(model.state_dict())
    return other
