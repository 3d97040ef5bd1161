"""Against PEFT on the same base: logits with the adapter, in the weights, and folders both ways."""

import json

import peft
import pytest
import torch
from adapters.small import filled, small_model, some_ids
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ayllu.adapters.lora import attach, fingerprint
from ayllu.adapters.merge import merge
from ayllu.adapters.store import read_adapter, write_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.save import save_checkpoint

# float32 in another order: the largest logits are about 30, of which 5e-5 is some ten units of the last place
CLOSE = {"atol": 5e-5, "rtol": 1e-5}
KINDS = {"all": {"r": 4, "lora_alpha": 16}, "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True},
         "dora": {"r": 3, "use_dora": True}, "two": {"r": 2, "target_modules": ("q_proj", "down_proj")},
         "pattern": {"r": 2, "target_modules": r".*\.[12]\.(self_attn\.v_proj|mlp\.up_proj)"},
         "layers": {"r": 2, "target_modules": ("k_proj", "o_proj"), "layers_to_transform": (0, 2)},
         "ranks": {"r": 4, "rank_pattern": {"layers.1.self_attn.q_proj": 7}, "alpha_pattern": {"q_proj": 3.0},
                   "exclude_modules": ("v_proj",)}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_checkpoint(folder, small_model())
    return folder


def theirs(base, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    return model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_our_folders_give_the_same_logits_in_peft(base, tmp_path, kind):
    model, ids = load_checkpoint(base).model, some_ids()
    write_adapter(tmp_path / "a", filled(model, **KINDS[kind]), base=fingerprint(model), base_name=str(base))
    plain = model(ids)
    with torch.no_grad():
        wanted = theirs(base, tmp_path / "a")(ids).logits
        attach(model, read_adapter(tmp_path / "a", model.config))
        torch.testing.assert_close(model(ids), wanted, **CLOSE)
    assert (plain - wanted).abs().max() > 0.5            # so the adapter does something


@pytest.mark.parametrize("dora", [False, True])
def test_folders_of_peft_give_the_same_logits_here(base, tmp_path, dora):
    torch.manual_seed(1)
    config = peft.LoraConfig(r=5, lora_alpha=20, target_modules="all-linear", init_lora_weights=False, use_dora=dora)
    model, ids = peft.get_peft_model(theirs(base), config).eval(), some_ids()
    model.save_pretrained(tmp_path)
    ours = load_checkpoint(base).model
    with torch.no_grad():
        wanted = model(ids).logits
        merged = merge(ours, read_adapter(tmp_path, ours.config))
        torch.testing.assert_close(ours(ids), wanted, atol=2e-4, rtol=1e-5)   # one more rounding of each weight
        merged.undo()
        torch.testing.assert_close(ours(ids), theirs(base)(ids).logits, **CLOSE)


def test_a_config_names_what_peft_names(base, tmp_path):
    """all-linear is written out, since PEFT would otherwise ask the base what it means."""
    model = load_checkpoint(base).model
    write_adapter(tmp_path / "a", filled(model, r=2))
    table = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert sorted(table["target_modules"]) == sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                                                      "down_proj"])
    assert set(table) <= set(peft.LoraConfig(r=2).to_dict())
