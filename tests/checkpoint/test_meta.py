"""Meta's folders: published shapes, shards merged, there and back."""

import json
from pathlib import Path

import pytest
import torch
from checkpoint.models import BASE, CONFIGS, META, assert_same_tensors, source

from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.meta import config_to_meta, hidden_dim
from ayllu.checkpoint.save import write_checkpoint
from ayllu.errors import CheckpointError
from ayllu.model.config import LlamaConfig


@pytest.mark.parametrize(("dim", "multiple_of", "multiplier", "wanted"), [
    (4096, 256, None, 11008), (5120, 256, None, 13824), (8192, 4096, 1.3, 28672), (4096, 1024, 1.3, 14336),
    (2048, 256, 1.5, 8192), (3072, 256, 1.0, 8192)],
    ids=["Llama 2 7B", "13B", "70B", "Llama 3 8B", "3.2 1B", "3.2 3B"])
def test_feed_forward_width_of_published_models(dim: int, multiple_of: int, multiplier: float | None,
                                                wanted: int) -> None:
    assert hidden_dim(dim, multiple_of, multiplier) == wanted


@pytest.mark.parametrize("name", META)
def test_there_and_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    before = source(name, torch.bfloat16)
    after = open_checkpoint(write_checkpoint(before, tmp_path / "out", to="meta"))
    assert after.format == "meta"
    assert after.config == before.config
    assert_same_tensors(before, after)


@pytest.mark.parametrize("vocabulary_by", ["columns", "rows"])
def test_two_shards_are_merged(vocabulary_by: str, tmp_path: Path) -> None:
    before = source("plain")
    folder = write_checkpoint(before, tmp_path / "out", to="meta")
    whole = torch.load(folder / "consolidated.00.pth", weights_only=True)
    for rank in range(2):
        torch.save({name: shard(name, w, rank, vocabulary_by) for name,
                    w in whole.items()} | {"rope.freqs": torch.ones(8)},
                   folder / f"consolidated.{rank:02}.pth")
    after = open_checkpoint(folder)
    assert after.config == before.config
    assert_same_tensors(before, after)
    (folder / "consolidated.00.pth").unlink()
    with pytest.raises(CheckpointError, match=r"consolidated.00.pth is missing"):
        open_checkpoint(folder)


def shard(name: str, weight: torch.Tensor, rank: int, vocabulary_by: str) -> torch.Tensor:
    """Meta's fairscale layers: columns of the embedding (Llama 3: rows), rows of wq wk wv w1 w3, columns of wo w2."""
    if weight.dim() == 1:
        return weight
    by_columns = name.split(".")[-2] in ("wo", "w2") or ("tok" in name and vocabulary_by == "columns")
    return weight.chunk(2, dim=1 if by_columns else 0)[rank].clone()


def test_more_shards_than_key_heads(tmp_path: Path) -> None:
    """With one key head on two ranks, both hold it."""
    config = CONFIGS["plain"].model_copy(update={"n_kv_heads": 1})
    from checkpoint.models import random_model

    from ayllu.checkpoint.save import source_from_model
    before = source_from_model(random_model(config))
    folder = write_checkpoint(before, tmp_path / "out", to="meta")
    whole = torch.load(folder / "consolidated.00.pth", weights_only=True)
    for rank in range(2):
        parts = {n: w if n.split(".")[-2] in ("wk", "wv") else shard(n, w, rank, "columns") for n, w in whole.items()}
        torch.save(parts, folder / f"consolidated.{rank:02}.pth")
    assert_same_tensors(before, open_checkpoint(folder))


def test_params_as_meta_wrote_them(tmp_path: Path) -> None:
    """Without our own config beside it: vocabulary -1, the context told by theta and epsilon."""
    folder = write_checkpoint(source("plain"), tmp_path / "out", to="meta")
    params = json.loads((folder / "params.json").read_text())
    assert set(params) <= {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of",
                           "ffn_dim_multiplier",
                           "norm_eps", "rope_theta",
                           "use_scaled_rope"}              # others would break Meta's own code
    (folder / "ayllu_config.json").unlink()
    for change, context in (({"vocab_size": -1}, 4096), ({"norm_eps": 1e-6}, 2048), ({"rope_theta": 5e5}, 8192),
                            ({"rope_theta": 1e6}, 16384), ({"rope_theta": 5e5, "use_scaled_rope": True}, 131072)):
        (folder / "params.json").write_text(json.dumps(params | change))
        found = open_checkpoint(folder).config
        assert (found.max_context, found.vocab_size) == (context, BASE["vocab_size"])
    assert found.rope_scaling is not None
    assert found.rope_scaling.factor == 8.0


def test_changed_params_win_over_our_config(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out", to="meta")
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | {"rope_theta": 12345.0}))
    with caplog.at_level("WARNING", logger="ayllu"):
        assert open_checkpoint(folder).config.rope_theta == 12345.0
    assert "rope_theta" in caplog.text


@pytest.mark.parametrize(("name", "named"), [("all biases", "qkv_bias"), ("mistral", "sliding_window"),
                                             ("yarn", "yarn"),
                                             ("wide heads", "head_dim"), ("linear", "linear")])
def test_what_the_format_cannot_hold_is_refused_by_field(name: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=named):
        write_checkpoint(source(name), tmp_path / "out", to="meta")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hidden", [1, 95, 97, 1000, 11008, 12345])
def test_any_width_has_params(hidden: int) -> None:
    config = LlamaConfig(**BASE | {"hidden_dim": hidden})
    params = config_to_meta(config)
    assert hidden_dim(config.dim, params["multiple_of"], params.get("ffn_dim_multiplier")) == hidden


@pytest.mark.parametrize(("change", "named"), [({"moe_args": {}}, "moe_args"), ({"dim": "x"}, "x"),
                                               ({"n_heads": 0}, "params"),
                                               ({"vision_chunk_size": 4}, "vision_chunk_size")])
def test_bad_params(change: dict, named: str, tmp_path: Path) -> None:
    folder = write_checkpoint(source("plain"), tmp_path / "out", to="meta")
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | change))
    with pytest.raises(CheckpointError, match=named):
        open_checkpoint(folder)
