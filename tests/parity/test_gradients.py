"""Gradients of the loss for every parameter, against transformers."""

import pytest
import torch.nn.functional as F
from parity.families import FAMILIES
from parity.pairs import pair, random_ids

from ayllu.checkpoint.hf import hf_name

NAMES = [*FAMILIES, "linear", "yarn", "llama3"]


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    both, ids = pair(name), random_ids(2, 40)
    expected = gradients(both.theirs, both.theirs(ids).logits, ids)
    found = gradients(both.ours, both.ours(ids), ids)
    assert {hf_name(key) for key in found} == set(expected)
    for key, gradient in found.items():
        theirs = expected[hf_name(key)]
        assert theirs.norm() > 0, key
        assert (gradient - theirs).norm() < 1e-4 * theirs.norm(), key
        assert (gradient - theirs).abs().max() < 1e-4 * theirs.abs().max(), key


def gradients(model, logits, ids):
    model.zero_grad()
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found
