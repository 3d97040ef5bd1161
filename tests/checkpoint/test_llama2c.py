"""llama2.c's .bin: a trained one gives the ids of llama2.c's own program; there and back; refusals by field."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint.models import CONFIGS, LLAMA2C, assert_same_tensors, shared_file, source

from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import write_checkpoint
from ayllu.errors import CheckpointError, ConfigError

STORIES = shared_file("llama2c/stories260K.bin")
GREEDY = [1, 461, 461, 401, 401, 401, 461, 378, 455, 473, 456, 435, 299, 362, 409, 283, 264, 283, 452, 288, 13]
needs_stories = pytest.mark.skipif(not STORIES.is_file(), reason="needs ../shared/data/llama2c/stories260K.bin")


@needs_stories
@pytest.mark.parametrize("to", ["bin", "hf", "meta", "gguf", "llama2c"])
def test_stories260k_gives_llama2cs_own_ids(to: str, tmp_path: Path) -> None:
    """The ids in the data folder's README, from the file itself and after each conversion."""
    path = STORIES if to == "bin" else write_checkpoint(open_checkpoint(STORIES), tmp_path / "out", to=to)
    loaded = load_checkpoint(path)
    assert loaded.tokenizer is None                      # the one beside the file has 32,000 ids, the model 512
    ids = [1]
    with torch.inference_mode():
        while len(ids) < len(GREEDY):
            ids.append(int(loaded.model(torch.tensor([ids]))[0, -1].argmax()))
    assert ids == GREEDY


@needs_stories
def test_writing_gives_the_same_file(tmp_path: Path) -> None:
    folder = write_checkpoint(open_checkpoint(STORIES), tmp_path / "out", to="llama2c")
    old, new = STORIES.read_bytes(), (folder / "model.bin").read_bytes()
    config = open_checkpoint(STORIES).config
    tables = config.max_context * config.head_dim * 4    # cosines and sines, at the end: last digits may differ
    assert len(old) == len(new)
    assert old[:-tables] == new[:-tables]
    assert np.allclose(np.frombuffer(old[-tables:], "<f4"), np.frombuffer(new[-tables:], "<f4"), atol=1e-4)


@pytest.mark.parametrize("name", LLAMA2C)
def test_there_and_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    before = source(name)
    folder = write_checkpoint(before, tmp_path / "out", to="llama2c")
    after = open_checkpoint(folder)
    assert after.format == "llama2c"
    assert after.config == before.config
    assert_same_tensors(before, after)
    vocab = struct.unpack_from("<7i", (folder / "model.bin").read_bytes())[5]
    assert vocab == (128 if CONFIGS[name].tie_embeddings else -128)


@pytest.mark.parametrize(("name", "named"), [
    ("all biases", "qkv_bias"), ("mistral", "sliding_window"), ("yarn", "rope_scaling"), ("wide heads", "head_dim"),
    ("llama 3.1", "rope_theta"), ("odd", "head_dim")])
def test_what_the_format_cannot_hold_is_refused_by_field(name: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=named):
        write_checkpoint(source(name), tmp_path / "out", to="llama2c")
    assert not list(tmp_path.iterdir())


def test_another_epsilon_and_dtype_are_refused(tmp_path: Path) -> None:
    before = source("plain")
    with pytest.raises(ConfigError, match="float32 only"):
        write_checkpoint(before, tmp_path / "out", to="llama2c", dtype="bf16")
    from dataclasses import replace
    other = replace(before, config=before.config.model_copy(update={"norm_eps": 1e-6}))
    with pytest.raises(CheckpointError, match="norm_eps"):
        write_checkpoint(other, tmp_path / "out", to="llama2c")


def test_newer_versions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v2.bin"
    path.write_bytes(struct.pack("<7i", 0x616B3432, 2, 64, 1, 2, 3, 4) + bytes(1000))
    with pytest.raises(CheckpointError, match="version 2"):
        open_checkpoint(path)


@pytest.mark.parametrize("header", [(64, 96, 2**31 - 1, 4, 4, 128, 64), (2**31 - 1,) * 7, (-64, 96, 2, 4, 4, 128, 64),
                                    (64, 96, 2, 0, 4, 128, 64), (64, 96, 2, 4, 3, 128, 64), (6, 96, 2, 2, 2, 8, 8)])
def test_absurd_headers(header: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(struct.pack("<7i", *header) + bytes(5000))
    with pytest.raises(CheckpointError, match=r"x\.bin"):
        open_checkpoint(path)
