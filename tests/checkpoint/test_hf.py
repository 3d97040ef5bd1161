"""Hugging Face folders: there and back bit for bit, and transformers reads ours as we read its."""

import json
from pathlib import Path

import pytest
import torch
from checkpoint.models import CONFIGS, assert_same_tensors, logits, random_model, source
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ayllu.checkpoint import hf
from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import save_checkpoint, write_checkpoint
from ayllu.errors import CheckpointError

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before = source(name, dtype)
    after = open_checkpoint(write_checkpoint(before, tmp_path / "out"))
    assert after.config == before.config
    assert all(entry.dtype == dtype for entry in after.entries.values())
    assert_same_tensors(before, after)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_the_same_from_our_folder(name: str, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    theirs = AutoModelForCausalLM.from_pretrained(save_checkpoint(tmp_path / "out", model)).eval()
    mine, other = logits(model), logits(theirs)
    assert other.std() >= 1
    assert (mine - other).abs().max() < 1e-4 * other.std()


def test_shards_and_their_index_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source("grouped tied")
    monkeypatch.setattr(hf, "SHARD_BYTES", 60_000)
    folder = write_checkpoint(before, tmp_path / "out")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    assert_same_tensors(before, open_checkpoint(folder))
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("model-*"))) > 2
    assert_same_tensors(before, open_checkpoint(tmp_path / "theirs"))


def test_pytorch_bin_single_and_sharded(tmp_path: Path) -> None:
    before = source("plain")
    folder = write_checkpoint(before, tmp_path / "out")
    weights = {hf.hf_name(name): tensor for name, tensor in before.tensors()}
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)      # old files have it
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert_same_tensors(before, open_checkpoint(folder))
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)      # before torch 1.6
    assert_same_tensors(before, open_checkpoint(folder))
    (folder / "pytorch_model.bin").unlink()
    names = sorted(weights)
    index = {}
    for i, part in enumerate((names[:7], names[7:])):
        torch.save({n: weights[n] for n in part}, folder / f"pytorch_model-{i}.bin")
        index |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same_tensors(before, open_checkpoint(folder))


def test_names_are_each_others_inverse() -> None:
    for name in source("all biases").entries:
        assert hf.our_name(hf.hf_name(name)) == name
        assert hf.hf_name(name) != name


def test_reading_maps_the_file_and_writing_to_the_model_leaves_it_alone(tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out")
    file = folder / "model.safetensors"
    before = file.read_bytes()
    model = load_checkpoint(folder).model
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(file) in maps.read()                  # zero-copy: the weights are pages of the file
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(2)
    assert file.read_bytes() == before


def test_a_tied_head_that_is_stored_again_must_be_equal(tmp_path: Path) -> None:
    theirs = LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2))
    theirs.save_pretrained(tmp_path)                     # untied: both matrices are there, and differ
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings to false"):
        open_checkpoint(tmp_path)
    theirs.lm_head.weight.data.copy_(theirs.model.embed_tokens.weight)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert "output.weight" not in open_checkpoint(tmp_path).entries


def test_explicit_dtype_casts_all(tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out", dtype="bf16")
    assert {entry.dtype for entry in open_checkpoint(folder).entries.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
