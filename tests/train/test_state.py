"""What a checkpoint holds besides weights: random numbers come back; and what decays."""

import torch

from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState, random_state, set_random_state

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50)


def state(**facts):
    model = build_model(CONFIG)
    initialise(model, 1, 0)
    return TrainState(model, build_optimizer(model, OptimConfig()), facts=facts)


def test_random_numbers_come_back():
    before = random_state()
    drawn = torch.rand(3)
    set_random_state(before)
    assert torch.equal(torch.rand(3), drawn)


def test_matrices_decay_and_the_rest_does_not():
    model = build_model(CONFIG)
    decayed, stays = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], stays["weight_decay"]) == (0.3, 0.0)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)] for p in stays["params"]} == {
        "tok_embeddings.weight", "norm.weight", "layers.0.attention_norm.weight", "layers.0.ffn_norm.weight"}
