"""Products in C++ in a fused runner, against oneDNN's or the eager runner's."""

import copy

import pytest
import torch
from model.test_fused import FAMILIES, logits_of, rows
from step_kinds import step_kind  # noqa: F401 - a fixture

from ayllu.engine import matrix
from ayllu.engine.matrix import NativeMatrix, matrix_for
from ayllu.engine.runner import make_runner
from ayllu.model.config import LlamaConfig
from ayllu.model.fused import FusedRunner
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.step import EagerRunner
from ayllu.native.build import missing_vectors

pytestmark = pytest.mark.skipif(bool(missing_vectors()), reason="no C++ compiler")
SHAPE = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 160, "vocab_size": 101,
         "max_context": 256}


def model_of(**fields):
    config = LlamaConfig(**{**SHAPE, **fields})
    model = Llama(config).eval()
    initialise(model, config.n_layers, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() == 2 else parameter.add_(torch.randn_like(parameter) / 4)
    return model.bfloat16()


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("family", ["llama", "tied", "all biases", "mistral"])
def test_logits_are_as_near_to_float32_as_the_eager_runners(family):
    """bfloat16 keeps 8 bits, so two orders of rounding differ; what counts is how far each is from the truth."""
    torch.manual_seed(0)
    model = model_of(**FAMILIES[family])
    then = torch.randint(0, 101, (3, 40))
    truth = logits_of(EagerRunner(copy.deepcopy(model).float()), rows(3, 20, 11), then)
    slow = (logits_of(EagerRunner(model), rows(3, 20, 11), then).float() - truth).square().mean().sqrt()
    fast = (logits_of(FusedRunner(copy.deepcopy(model), make=NativeMatrix), rows(3, 20, 11), then).float()
            - truth).square().mean().sqrt()
    assert fast <= 1.1 * slow
    assert slow < truth.std() / 20                       # so that the comparison means something


@pytest.mark.parametrize("family", ["llama", "tied", "all biases"])
def test_weights_come_back_bit_for_bit(family):
    model = model_of(**FAMILIES[family])
    want = copy.deepcopy(model.state_dict())
    found = FusedRunner(model, make=NativeMatrix).give_back().state_dict()
    assert all(torch.equal(found[name], want[name]) for name in want)


def test_it_is_for_bfloat16_without_amx(monkeypatch):
    monkeypatch.setattr(matrix, "missing", lambda: "this CPU has no AMX")
    monkeypatch.setattr(matrix, "multiplies_bfloat16", lambda: True)
    assert matrix_for(model_of()) is NativeMatrix
    assert isinstance(make_runner(model_of()).head, NativeMatrix)
    assert matrix_for(model_of().float()) is None
    assert matrix_for(model_of(hidden_dim=90)) is None   # not a multiple of 32
    assert not isinstance(make_runner(model_of(), shares=True).head, NativeMatrix)
    monkeypatch.setattr(matrix, "missing", lambda: None)
    assert matrix_for(model_of()) is None                # oneDNN is fast there
