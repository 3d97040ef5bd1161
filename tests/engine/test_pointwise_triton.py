"""The Triton kernels between a fused runner's products against their twin `Plain`, which computes in float64 here.

    TRITON_INTERPRET=1 pytest -m triton                  # needs triton: pip install --no-deps triton
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from engine.small import MODELS, TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine
from ayllu.engine.runner import make_runner
from ayllu.model.fused import FusedRunner, TorchMatrix
from ayllu.model.pointwise import Plain

KERNEL = Path(__file__).parents[2] / "ayllu" / "engine" / "pointwise_triton.py"
interpreted = pytest.mark.triton
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
DEVICES = [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=on_gpu)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# tokens, width, feed-forward width, heads, those of them that are turned, head width
SHAPES = [(1, 32, 48, 6, 4, 8), (3, 99, 1025, 13, 11, 6), (1, 4096, 11008, 96, 64, 128), (7, 1, 1, 1, 1, 2)]
LARGE = (2048, 4096, 11008, 96, 64, 128)


def kernels(source=KERNEL):
    """Those of this file."""
    spec = importlib.util.spec_from_file_location(f"kernel_{abs(hash(source))}", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Kernels()


def fault(own, shape, dtype, device):
    """The largest difference from the truth over what two roundings allow: of an epsilon each, not half of one, since
    the interpreter cuts bfloat16 off. Infinite where other heads were touched."""
    N, D, F, H, turned, E = shape
    draw = torch.Generator().manual_seed(0)
    x, weight, both, heads, cos, sin = (torch.randn(*size, generator=draw).mul_(3).to(device, dtype)
                                        for size in ((N, D), (D,), (N, 2 * F), (N, H, E), (N, E), (N, E)))
    before, worst, plain = heads.clone(), 0.0, Plain()
    want = heads.double()[:, :turned].clone()
    plain.turn(want, cos.double(), sin.double())
    own.turn(heads[:, :turned], cos, sin)
    if not torch.equal(heads[:, turned:], before[:, turned:]):
        return float("inf")
    size = want.abs().amax()
    pairs = [(own.norm(x, weight, 1e-5), norm(x.double(), weight.double()), None), (heads[:, :turned], want, size),
             (own.gate(both), plain.gate(both.double()), None)]
    for found, truth, scale in pairs:
        assert found.dtype == dtype
        allowed = 2.1 * torch.finfo(dtype).eps * (truth.abs() if scale is None else scale) + 1e-6
        worst = max(worst, ((found.double() - truth).abs() / allowed).max().item())
    return worst if worst == worst else float("inf")


def norm(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight


@pytest.mark.parametrize("device", DEVICES)
def test_kernels_agree_with_their_twin(device):
    shapes = [*SHAPES, LARGE] if device == "cuda" else SHAPES
    found = [fault(kernels(), shape, dtype, device) for shape in shapes for dtype in DTYPES]
    assert max(found) < 1, found


@interpreted
@pytest.mark.parametrize(("right", "wrong"), [
    ("tl.sum(numbers * numbers, 0) / D", "tl.sum(numbers * numbers, 0) / D2"),
    ("b * cos_b + a * sin_b", "b * cos_b - a * sin_b"),
    ("token * stride", "token * H * E"),                 # heads that lie apart
    ("token * 2 * F + F + f", "token * 2 * F + f"),
    ("(silu * up)", "(gate * up)"),
])
def test_a_wrong_kernel_is_noticed(right, wrong, tmp_path):
    source = KERNEL.read_text(encoding="utf-8")
    assert right in source
    mutant = tmp_path / "mutant.py"
    mutant.write_text(source.replace(right, wrong), encoding="utf-8")
    assert fault(kernels(mutant), SHAPES[1], torch.float32, "cpu") > 1


@interpreted
def test_a_fused_engine_chooses_the_same_ids():
    want = ids_of(run(Engine(model_of("gqa"), TIGHT), requests_of(2)))
    runner = FusedRunner(model_of("gqa"), make=TorchMatrix)
    fast = Engine(runner, TIGHT.model_copy(update={"attention": "triton"}))
    assert type(fast.runner.pointwise).__module__ == "ayllu.engine.pointwise_triton"
    assert isinstance(runner.pointwise, Plain)
    assert ids_of(run(fast, requests_of(2))) == want


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attention", ["triton", "torch"])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "transformer"])
def test_a_fused_engine_on_a_gpu(name, attention):
    """float32, so that ids are those of the CPU; with Triton, decoding steps are CUDA graphs."""
    requests = requests_of(24)
    want = ids_of(run(Engine(model_of(name), TIGHT), requests))
    assert isinstance(make_runner(model_of(name).cuda()), FusedRunner)        # what `auto` takes
    engine = Engine(make_runner(model_of(name).cuda(), "fused"), TIGHT.model_copy(update={"attention": attention}))
    assert ids_of(run(engine, requests)) == want
    assert (engine.paths.graphs is not None) == (attention == "triton")
