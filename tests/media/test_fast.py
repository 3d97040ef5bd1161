"""Fast layers beside the plain ones, in float32 and bfloat16, for each activation."""

import copy

import pytest
import torch

from ayllu.media.fast import FastLayer, fast
from ayllu.media.senses import Medium, Senses, SensesConfig

SHAPE = {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 64}


def senses(activation: str) -> Senses:
    torch.manual_seed(1)
    shape = {**SHAPE, "activation": activation}
    eye = {"pixels": {"size": 16}, "vision": {"shape": shape, "image_size": 16, "patch_size": 4, "kind": "clip"},
           "project": {"width": 32, "out": 24}, "depth": -2}
    ear = {"audio": {"shape": {**shape, "key_bias": False}, "n_mels": 16, "seconds": 1},
           "project": {"width": 32, "out": 24}}
    made = Senses(SensesConfig.model_validate({"eye": eye, "ear": ear})).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


@torch.inference_mode()
def test_without_the_kernel_attention_is_torchs(monkeypatch):
    monkeypatch.setattr("ayllu.native.whole.works", lambda: False)
    monkeypatch.setattr("ayllu.native.whole.attend", None)                    # not to be called
    plain = senses("gelu")
    media = [Medium("image", torch.randn(3, 16, 16), 16, b""), Medium("audio", torch.randn(16, 100), 50, b"")]
    for one, two in zip(fast(copy.deepcopy(plain)).features(media), plain.features(media), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-5)            # other orders of sums


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_tanh"])
def test_fast_layers_are_the_plain_ones(activation, dtype):
    plain = senses(activation).to(dtype)
    quick = fast(copy.deepcopy(plain))
    assert all(isinstance(layer, FastLayer) for layer in [*quick.eye.encoder.layers, *quick.ear.encoder.layers])
    media = [Medium("image", torch.randn(3, 16, 16), 16, b""), Medium("audio", torch.randn(16, 100), 50, b""),
             Medium("image", torch.randn(3, 16, 16), 16, b"")]
    exact = senses(activation).to(dtype).float().features(media)              # the same weights, float32 arithmetic
    for one, two, three in zip(quick.features(media), plain.features(media), exact, strict=True):
        assert one.dtype == dtype
        if dtype == torch.float32:
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-5)        # other orders of sums
        else:                                            # no farther from the truth than the plain layers by half
            assert (one - three).norm() < 1.5 * (two - three).norm() + 1e-3
