"""An adapter trained by `ayllu sft`: only it learns and is saved, PEFT reads it, and it merges with a check."""

import json

import peft
import pytest
import torch
from safetensors import safe_open
from torch.distributed.checkpoint import FileSystemReader
from train.test_sft import assert_equal, chats, run, settings  # noqa: F401 - fixtures
from transformers import AutoModelForCausalLM

from ayllu.adapters.lora import attach, fingerprint, without
from ayllu.adapters.store import read_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.llm import LLM
from ayllu.errors import ConfigError
from ayllu.train.base import base_model
from ayllu.train.lesson import prepared
from ayllu.train.loop import step
from ayllu.train.sft import new_state, training_loss

CPU = torch.device("cpu")
LORA = ["lora.r=4", "optim.lr=0.02", "optim.schedule.kind=constant"]


def begun(settings, *changes):  # noqa: F811
    config, folder = settings(*changes)
    config, lesson = prepared(config, folder)
    model, base = base_model(config, lesson.source, CPU)
    return config, lesson, new_state(config, model), base


def tensors(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping


def test_a_trained_adapter_resumes_merges_and_gives_the_logits_of_peft(settings, tmp_path, tiny_checkpoint):  # noqa: F811
    same = [*LORA, "lora.plus=4", "lora.lora_dropout=0.1", "loop.checkpoint_every=3", "merge=true"]
    result = run(settings, "loop.steps=6", *same)
    run(settings, "loop.steps=3", *same, name="halves")
    run(settings, "loop.steps=6", *same, name="halves", resume=True)
    one, header = tensors(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert_equal(one, tensors(tmp_path / "halves" / "adapter" / "adapter_model.safetensors")[0])
    base = load_checkpoint(tiny_checkpoint, dtype="float32").model
    assert header["ayllu_base"] == fingerprint(base)
    saved = FileSystemReader(tmp_path / "run" / "checkpoints" / "step-00000006").read_metadata().state_dict_metadata
    weights = [name for name in saved if name.startswith("model.")]
    assert len(weights) == len(one)                      # the adapter, and nothing of the base
    assert all(".lora_" in name for name in weights)
    assert "facts.base" in saved
    assert 0 < result["merge_loss"] < 1e-3
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    theirs = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        plain = base(ids)
        wanted = peft.PeftModel.from_pretrained(theirs, tmp_path / "run" / "adapter").eval()(ids).logits
        attach(base, read_adapter(tmp_path / "run" / "adapter", base.config))
        torch.testing.assert_close(base(ids), wanted, atol=5e-5, rtol=1e-5)  # float32 in another order
        with without(base):
            assert torch.equal(base(ids), plain)
        merged = load_checkpoint(tmp_path / "run" / "model").model(ids)
    torch.testing.assert_close(merged, wanted, atol=1e-3, rtol=1e-3)
    assert (plain - wanted).abs().max() > 0.1
    llm = LLM.load(tiny_checkpoint, adapter=tmp_path / "run" / "adapter")
    assert llm.eos_ids == (2,)
    assert "[INST]" in llm.checkpoint.chat_template      # it answers as it was taught


def test_only_the_adapter_learns_and_b_faster_with_lora_plus(settings):  # noqa: F811
    moved = {}
    for plus in ("1", "16"):
        config, lesson, state, _ = begun(settings, *LORA, f"lora.plus={plus}", "optim.lr=1e-3")
        before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
        step(state, lesson.loader(config).batch(0), training_loss(config, CPU, state.model), config.loop, config.optim,
             CPU)
        for name, parameter in state.model.named_parameters():
            assert torch.equal(parameter, before[name]) != name.endswith("lora_b"), name    # A's gradient is B, still 0
        moved[plus] = max((p - before[n]).abs().max() for n, p in state.model.named_parameters())
        assert set(state.state_dict()["model"]) == {n for n, p in state.model.named_parameters() if p.requires_grad}
    torch.testing.assert_close(moved["16"], 16 * moved["1"], rtol=1e-4, atol=0)     # Adam's first step is its rate


def test_the_anchor_of_an_adapter_is_the_model_without_it(settings):  # noqa: F811
    config, lesson, state, _ = begun(settings, *LORA, "anchor=1")
    batch, loss = lesson.loader(config).batch(0), training_loss(config, CPU, state.model)
    plain = training_loss(config.model_copy(update={"anchor": 0.0}), CPU, state.model)
    torch.testing.assert_close(loss(state.model, batch).total, plain(state.model, batch).total)
    for _ in range(3):
        step(state, batch, plain, config.loop, config.optim, CPU)
    assert loss(state.model, batch).total > plain(state.model, batch).total + 0.1


@pytest.mark.parametrize("changes", [["lora.use_dora=true"], ["loop.precision=bf16_masters"]] + [
    pytest.param([change], marks=pytest.mark.slow) for change in (
        "loop.ema=0.9", "optim.kind=muon", "loop.activation_checkpointing=true")])
def test_what_an_adapter_can_be_trained_with(settings, changes):  # noqa: F811
    config, lesson, state, _ = begun(settings, *LORA, *changes)
    loss = training_loss(config, CPU, state.model)
    losses = [step(state, lesson.loader(config).batch(0), loss, config.loop, config.optim, CPU)["loss"]
              for _ in range(8)]
    assert losses[-1] < losses[0]
    with state.averaged():
        assert all(torch.isfinite(p).all() for p in state.model.parameters())


def test_another_base_and_targets_that_match_nothing_are_refused(settings, tmp_path, tiny_checkpoint):  # noqa: F811
    with pytest.raises(ConfigError, match="no linear layer"):
        run(settings, *LORA, 'lora.target_modules=["qkv_proj"]')
    with pytest.raises(ConfigError, match="for a frozen base"):
        settings("merge=true")
    run(settings, *LORA, "loop.steps=1", name="one")
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["lora"]["r"] == 4
    other = load_checkpoint(tiny_checkpoint, dtype="float32").model
    adapter = read_adapter(tmp_path / "one" / "adapter", other.config)
    with torch.no_grad():
        other.norm.weight.add_(1)
    with pytest.raises(ConfigError, match="made for the base"):
        attach(other, adapter)
