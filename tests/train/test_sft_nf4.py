"""QLoRA: an adapter over a base in NF4 learns, resumes, and belongs to the base that was packed."""

import pytest
import torch
from train.test_sft import CPU, chats, run, settings  # noqa: F401 - fixtures
from train.test_sft_lora import LORA, begun

from ayllu.adapters.lora import attached, fingerprint
from ayllu.adapters.store import read_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.errors import ConfigError
from ayllu.quant.linear import Nf4Linear
from ayllu.train.loop import step
from ayllu.train.memory import predict
from ayllu.train.sft import training_loss

NF4 = [*LORA, "quant=nf4"]


def test_it_learns_over_packed_weights_and_leaves_them(settings, tiny_checkpoint):  # noqa: F811
    config, lesson, state, base = begun(settings, *NF4, "loop.activation_checkpointing=true")
    layers = [layer.base for _, layer in attached(state.model)]
    assert len(layers) == 14
    assert all(isinstance(layer, Nf4Linear) for layer in layers)
    assert base == fingerprint(load_checkpoint(tiny_checkpoint, dtype="float32").model)
    before = [layer.codes.clone() for layer in layers]
    loss = training_loss(config, CPU, state.model)
    losses = [step(state, lesson.loader(config).batch(0), loss, config.loop, config.optim, CPU)["loss"]
              for _ in range(10)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(a, layer.codes) for a, layer in zip(before, layers, strict=True))
    assert not any("codes" in name for name in state.state_dict()["model"])


def test_a_run_exports_an_adapter_for_the_16_bit_base_and_merges_into_it(settings, tmp_path, tiny_checkpoint):  # noqa: F811
    result = run(settings, *NF4, "loop.steps=2", "merge=true")
    base = load_checkpoint(tiny_checkpoint, dtype="float32").model
    assert read_adapter(tmp_path / "run" / "adapter", base.config).base == fingerprint(base)
    assert result["merge_loss"] < 1e-3
    with pytest.raises(ConfigError, match="compile"):
        settings(*NF4, "compile=on")


def test_the_prediction_counts_packed_weights(settings):  # noqa: F811
    most = {}
    for quant in ("none", "nf4"):
        config = begun(settings, *LORA, f"quant={quant}", "base_dtype=bfloat16")[0]
        shape = config.model.model_copy(update={"dim": 256, "hidden_dim": 512, "head_dim": 64, "n_layers": 4})
        most[quant] = predict(config.model_copy(update={"model": shape}), CPU).state
    saved = 4 * (256 * (4 * 256 - 2 * 128) + 3 * 256 * 512)
    assert most["none"] - most["nf4"] == pytest.approx(saved * (2 - 4.127 / 8), rel=0.02)
