"""Each optimiser against a slow twin in float64, what decays, and Muon against torch's own."""

import numpy as np
import pytest
import torch
from oracles import optimisers_numpy as slow
from torch import nn

from ayllu.config import validate
from ayllu.errors import ConfigError
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.muon import Muon, orthogonalise
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.prodigy import Prodigy
from ayllu.train.schedule_free import ScheduleFree

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50)
STEPS, BETAS, EPS = 25, (0.9, 0.95), 1e-8
DECAY = [0.1, 0.0]
DTYPE = torch.float64                                    # so that only the algorithm can differ


def rate(t):
    """A warm-up of five steps."""
    return 0.03 * min(t / 5, 1.0)


class Bowl:
    """A quadratic with noise that depends on the step alone: sum of (a w - b)² over a matrix and a vector."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = [rng.normal(size=(6, 4)), rng.normal(size=5)]
        self.scale = [np.exp(rng.normal(size=w.shape)) for w in self.first]
        self.goal = [rng.normal(size=w.shape) for w in self.first]
        self.noise = rng.normal(size=STEPS) * 0.3
        self.calls = 0

    def __call__(self, weights):
        noise = self.noise[self.calls]
        self.calls += 1
        return [2 * a * (a * w - b) + noise for w, a, b in zip(weights, self.scale, self.goal, strict=True)]


def run(make, rate=rate):
    """Train the bowl with an optimiser of ours."""
    bowl = Bowl()
    weights = [nn.Parameter(torch.tensor(w, dtype=DTYPE)) for w in bowl.first]
    groups = [{"params": [w], "weight_decay": d} for w, d in zip(weights, DECAY, strict=True)]
    optimizer = make(groups)
    for t in range(1, STEPS + 1):
        for w, g in zip(weights, bowl([w.detach().numpy() for w in weights]), strict=True):
            w.grad = torch.tensor(g, dtype=DTYPE)
        for group in optimizer.param_groups:
            group["lr"] = rate(t)
        optimizer.step()
    return weights, optimizer


def same(found, expected, rtol=1e-9):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=rtol, atol=rtol)


def test_adamw():
    found, _ = run(lambda groups: torch.optim.AdamW(groups, betas=BETAS, eps=EPS, fused=True))
    same(found, slow.adamw(Bowl().first, Bowl(), STEPS, rate, *BETAS, EPS, DECAY))


def test_schedule_free():
    found, optimizer = run(lambda groups: ScheduleFree(groups, 1.0, BETAS, EPS))
    x, y = slow.schedule_free_adamw(Bowl().first, Bowl(), STEPS, rate, *BETAS, EPS, DECAY)
    same(found, y)
    averages = optimizer.averages()
    same([averages[w] for w in found], x)
    assert not np.allclose(x[0], y[0], atol=1e-3)        # evaluating at y would be noticed


def test_prodigy():
    def warm_up(t):
        return min(t / 3, 1.0)

    found, optimizer = run(lambda groups: Prodigy(groups, 1.0, BETAS, EPS), warm_up)
    expected, d = slow.prodigy(Bowl().first, Bowl(), STEPS, warm_up, *BETAS, EPS, DECAY)
    same(found, expected)
    assert [g["d"] for g in optimizer.param_groups] == pytest.approx([d, d], rel=1e-9)
    assert d > 1e-5                                      # the estimate has grown tenfold at least


def test_prodigy_finds_the_scale_of_the_problem():
    """From 1e-6 it reaches a goal at distance 100: an absolute rate would have to be told."""
    w = nn.Parameter(torch.zeros(20, dtype=DTYPE))
    optimizer = Prodigy([{"params": [w]}], 1.0, (0.9, 0.999), EPS)
    for _ in range(400):
        w.grad = torch.sign(w.detach() - 100) + 0.01 * (w.detach() - 100)
        optimizer.step()
    assert (w - 100).abs().max() < 5


def muon_of(groups):
    groups[0]["muon"] = True
    return Muon(groups, 1.0, BETAS, EPS)


def test_muon_for_the_matrix_and_adamw_for_the_rest():
    found, _ = run(muon_of)
    bowl = Bowl()
    # the two parts do not interact in the bowl, so each twin may hold the other's part still
    matrix = slow.muon(bowl.first[:1], lambda w: bowl([*w, bowl.first[1]])[:1], STEPS, rate, 0.95, DECAY)
    bowl = Bowl()
    vector = slow.adamw(bowl.first, bowl, STEPS, rate, *BETAS, EPS, DECAY)
    same(found[:1], matrix, rtol=2e-4)                   # Newton-Schulz runs in float32
    same(found[1:], vector[1:])


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (1, 5)])
def test_newton_schulz_equals_its_polynomial_on_the_singular_values(shape):
    matrix = np.random.default_rng(1).normal(size=shape)
    found = orthogonalise(torch.tensor(matrix, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, slow.polynomial_of_singular_values(matrix), atol=2e-4)
    singular = np.linalg.svd(found, compute_uv=False)
    assert singular.min() > 0.3
    assert singular.max() < 1.3


def test_stacked_matrices_are_orthogonalised_each_by_itself():
    matrices = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    for one, batched in zip(matrices, orthogonalise(matrices), strict=True):
        torch.testing.assert_close(orthogonalise(one), batched, rtol=1e-4, atol=1e-4)


def test_muon_equals_torchs_own_to_bfloat16():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(12, 8)) for _ in range(2))
    one = Muon([{"params": [ours], "muon": True, "weight_decay": 0.1}], 0.02, BETAS, EPS)
    two = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        ours.grad = torch.randn(12, 8)
        theirs.grad = ours.grad.clone()
        one.step()
        two.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)   # ten updates of about 0.01, theirs in bfloat16


def names_by_group(config, **optim):
    model = build_model(config)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = build_optimizer(model, OptimConfig(weight_decay=0.3, **optim)).param_groups
    return [({names[id(p)] for p in g["params"]}, g["weight_decay"], g.get("muon", False)) for g in groups]


def test_muon_takes_hidden_matrices_alone():
    hidden, head, rest = names_by_group(CONFIG, kind="muon")
    assert hidden[0] == {f"layers.0.{n}.weight" for n in (
        "attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w1", "feed_forward.w2",
        "feed_forward.w3")}
    assert hidden[1:] == (0.3, True)
    assert head == ({"output.weight"}, 0.3, False)
    assert rest[1:] == (0.0, False)
    assert "tok_embeddings.weight" in rest[0]


@pytest.mark.parametrize("kind", ["adamw", "muon", "schedule_free", "prodigy"])
def test_a_tied_head_is_an_embedding_and_does_not_decay(kind):
    for names, decay, _ in names_by_group(CONFIG.model_copy(update={"tie_embeddings": True}), kind=kind):
        assert ("tok_embeddings.weight" in names) <= (decay == 0.0)


@pytest.mark.parametrize("kind", ["adamw", "muon", "schedule_free", "prodigy"])
def test_each_learns_a_tiny_problem(kind):
    torch.manual_seed(0)
    model = build_model(CONFIG)
    initialise(model, 1, 0)
    config = OptimConfig(kind=kind) if kind == "prodigy" else OptimConfig(kind=kind, lr=1e-2)
    optimizer = build_optimizer(model, config)
    ids = torch.arange(40).view(4, 10)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 2.0                             # it began at ln 50 = 3.9


def test_what_a_kind_needs_is_set_or_said():
    assert OptimConfig(kind="prodigy").lr == 1.0
    assert OptimConfig(kind="prodigy", lr=0.5).lr == 0.5
    assert OptimConfig(kind="schedule_free").schedule.kind == "constant"
    with pytest.raises(ConfigError, match=r"set optim\.schedule\.kind=constant"):
        validate(OptimConfig, {"kind": "schedule_free", "schedule": {"kind": "cosine"}}, "here")
