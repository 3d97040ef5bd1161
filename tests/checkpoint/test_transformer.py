"""An exported original Transformer comes back bit for bit; `info` and `walk` take it; damaged ones are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ayllu.checkpoint.transformer import is_transformer, open_transformer
from ayllu.cli.main import run
from ayllu.errors import CheckpointError, ConfigError
from ayllu.model.config import TransformerConfig
from ayllu.model.transformer import Transformer

CONFIG = TransformerConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=8, hidden_dim=64, vocab_size=50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As ayllu/train/export.py writes it."""
    model = Transformer(CONFIG)
    save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, tmp_path / "model.safetensors")
    (tmp_path / "ayllu_config.json").write_text(CONFIG.model_dump_json())
    return tmp_path


def test_there_and_back(folder: Path):
    assert is_transformer(folder)
    model = open_transformer(folder).build()
    stored = load_file(folder / "model.safetensors")
    assert {n for n, _ in model.named_parameters()} == set(stored)
    assert all(torch.equal(p, stored[n]) for n, p in model.named_parameters())
    assert not model.training
    (folder / "config.json").write_text("{}")
    assert not is_transformer(folder)                    # Hugging Face's folder with our config beside it


def test_what_training_exports_is_such_a_folder(tmp_path: Path):
    export = pytest.importorskip("ayllu.train.export")

    class NoTokenizer:
        def save(self, folder: Path) -> None: ...

    model = Transformer(CONFIG)
    export.export(model, NoTokenizer(), tmp_path / "out", data={}, licence=None)
    again = open_transformer(tmp_path / "out").build()
    assert torch.equal(again(torch.tensor([[1, 2]])), model.eval()(torch.tensor([[1, 2]])))


def test_info_and_walk(folder: Path, capsys):
    assert run(["info", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"]["kind"] == "transformer"
    assert found["parameters"]["total"] == sum(p.numel() for p in Transformer(CONFIG).parameters())
    assert run(["info", str(folder)]) == 0
    assert run(["info", str(folder), "--mermaid"]) == 0
    assert "LayerNorm" in capsys.readouterr().out
    assert run(["walk", "--ids", "1,2,3", "--model", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][2]["key"] == "sinusoids"


def test_damaged(folder: Path):
    weights = load_file(folder / "model.safetensors")
    file = folder / "model.safetensors"
    save_file({n: w for n, w in weights.items() if n != "layers.1.attention.wq.weight"}, file)
    with pytest.raises(CheckpointError, match=r"layers.1.attention.wq.weight is nothing, the config says \(32, 32\)"):
        open_transformer(folder)
    save_file({**weights, "extra": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"extra is .*the config says nothing"):
        open_transformer(folder)
    save_file({**weights, "layers.0.ffn_norm.weight": torch.full((32,), torch.nan)}, file)
    with pytest.raises(CheckpointError, match="NaN"):
        open_transformer(folder).build()
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        open_transformer(folder)
    (folder / "ayllu_config.json").write_text(json.dumps({**CONFIG.model_dump(), "dimm": 3}))
    with pytest.raises(ConfigError, match="did you mean 'dim'"):
        open_transformer(folder)
