"""Folders that others made: each fault is one clear error that names the file and the key, before a matrix is used."""

import json

import pytest
import torch
from adapters.small import CONFIG, filled, small_model
from safetensors.torch import load_file, save_file

from ayllu.adapters.config import LoraConfig
from ayllu.adapters.lora import fingerprint
from ayllu.adapters.names import THEIRS, hf_module, modules, our_module
from ayllu.adapters.store import read_adapter, write_adapter
from ayllu.checkpoint.hf import hf_name, our_name
from ayllu.errors import AylluError, CheckpointError, ConfigError

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def folder(tmp_path):
    model = small_model()
    return write_adapter(tmp_path / "a", filled(model, r=2, target_modules=("q_proj", "v_proj")),
                         base=fingerprint(model))


def change_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_what_is_written_is_read(folder):
    wanted = filled(small_model(), r=2, target_modules=("q_proj", "v_proj"))
    found = read_adapter(folder, CONFIG)
    assert (found.digest, found.base) == (wanted.digest, fingerprint(small_model()))
    for name, pair in wanted.pairs.items():
        assert all(map(torch.equal, pair.tensors, found.pairs[name].tensors))


@pytest.mark.parametrize(("changes", "says"), [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"), ({"bias": "all"}, "bias is 'all'"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"), ({"lora_bias": True}, "lora_bias"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices"), ({"some_new_key": 3}, "some_new_key"),
    ({"r": 0}, "r:"), ({"r": "many"}, "r:"), ({"lora_alpha": float("nan")}, "lora_alpha"), ({"r": 4}, "expected"),
    ({"rank_pattern": {"(a+)+$": 3}}, "regular expression"), ({"exclude_modules": "(a+)+$"}, "exclude_modules"),
    ({"target_modules": ["q_proj"]}, "none of the target_modules"),
    ({"target_modules": ["q_proj", "v_proj", "c_attn"]}, "'c_attn'"),
    ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "lacks its"),
    ({"target_modules": "all-linear"}, "lacks its"), ({"use_dora": True}, "'magnitude'"),
    ({"layers_to_transform": [0]}, "none of the target_modules")])
def test_a_config_that_cannot_be_honoured_is_named(folder, changes, says):
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match="adapter_") as error:
        read_adapter(folder, CONFIG)
    assert says in str(error.value)


def test_a_pattern_from_a_stranger_is_never_run(folder):
    """The layers that have matrices are what counts: this pattern would take longer than anyone can wait."""
    change_config(folder, target_modules="(([a-z.0-9_]+)+)+!")
    assert read_adapter(folder, CONFIG).config.is_pattern


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.update({FIRST: torch.zeros(3, 32)}), "has shape (3, 32), expected (2, 32)"),
    (lambda t: t.update({FIRST: torch.zeros(2, 32, dtype=torch.int8)}), "stored as I8"),
    (lambda t: t.update({FIRST: torch.full((2, 32), torch.nan)}), "NaN"),
    (lambda t: t.pop(FIRST), "lacks its"), (lambda t: t.clear(), "lacks its"),
    (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 32)}), "lm_head"),
    (lambda t: t.update({FIRST.replace("layers.0", "layers.9"): torch.zeros(2, 32)}), "of a layer that the model"),
    (lambda t: t.update({FIRST.removeprefix("base_model.model."): torch.zeros(2, 32)}), "under two names"),
    (lambda t: t.update({FIRST.replace("lora_A", "base_layer"): torch.zeros(32, 32)}), "base_layer")])
def test_weights_that_do_not_fit_are_named(folder, change, says):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match="adapter_model") as error:
        read_adapter(folder, CONFIG)
    assert says in str(error.value)


def test_damaged_files_are_errors(folder):
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for data in (whole[:-5], whole + b"0", b"", whole[:6], b"\xff" * 40, whole[:8] + b"[" + whole[9:]):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="adapter_model"):
            read_adapter(folder, CONFIG)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="adapter_config"):
        read_adapter(folder, CONFIG)


def test_a_pickle_is_refused_and_a_missing_file_said(folder, tmp_path):
    (folder / "adapter_model.safetensors").rename(tmp_path / "outside.safetensors")
    with pytest.raises(CheckpointError, match="incomplete"):
        read_adapter(folder, CONFIG)
    (folder / "adapter_model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(CheckpointError, match="outside of its folder"):
        read_adapter(folder, CONFIG)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickle"):
        read_adapter(folder, CONFIG)
    with pytest.raises(CheckpointError, match="holds no adapter"):
        read_adapter(tmp_path, CONFIG)


def test_size_is_bounded_and_other_shapes_are_refused(folder):
    with pytest.raises(CheckpointError, match="may be loaded"):
        read_adapter(folder, CONFIG, most_bytes=1000)
    with pytest.raises(CheckpointError, match="another base"):
        read_adapter(folder, CONFIG.model_copy(update={"dim": 40}))


def test_nothing_of_others_is_replaced(folder, tmp_path):
    adapter = read_adapter(folder, CONFIG)
    with pytest.raises(CheckpointError, match="exists"):
        write_adapter(folder, adapter)
    write_adapter(folder, adapter, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="exists"):
        write_adapter(tmp_path / "mine", adapter, overwrite=True)


def test_names_agree_with_the_checkpoint_readers():
    """Two tables, since the rooms are siblings: they must say the same."""
    for name in modules(CONFIG):
        assert hf_name(f"{name}.weight") == f"{hf_module(name)}.weight"
        assert our_module(hf_module(name)) == our_name(f"{hf_module(name)}.weight").removesuffix(".weight") == name
    assert set(modules(CONFIG)) == {n.removesuffix(".weight") for n, p in small_model().named_parameters()
                                    if p.dim() == 2 and n.startswith("layers.")}
    assert len(THEIRS) == 7


@pytest.mark.parametrize("targets", [("c_attn",), ("proj",), ("lm_head", "q_proj"), "q_proj", ()])
def test_targets_that_mean_nothing_are_refused(targets):
    with pytest.raises(ConfigError, match="target_modules"):
        LoraConfig(target_modules=targets).targets(CONFIG)


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(AylluError, match="layer 7"):
        LoraConfig(layers_to_transform=(1, 7)).targets(CONFIG)
