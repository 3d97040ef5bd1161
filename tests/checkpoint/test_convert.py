"""Conversions prove themselves, and leave nothing behind where they can't."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from checkpoint.models import LLAMA2C, META, assert_same_tensors, source

from ayllu.checkpoint import convert as module
from ayllu.checkpoint import gguf, q8
from ayllu.checkpoint.convert import convert
from ayllu.checkpoint.load import load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import FORMATS, write_checkpoint
from ayllu.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(("first", "second"), list(product(FORMATS, FORMATS)))
def test_every_format_to_every_format(first: str, second: str, tmp_path: Path) -> None:
    before = source("grouped tied")
    start = write_checkpoint(before, tmp_path / "start", to=first)
    done = convert(start, tmp_path / "end", to=second)
    assert (done.source_format, done.format, done.dtype) == (first, second, "float32")
    assert done.largest_weight_difference == done.largest_logit_difference == 0
    assert done.same_next_token == 1
    assert done.logit_deviation >= 1
    assert_same_tensors(before, open_checkpoint(tmp_path / "end"))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("to", ["hf", "meta", "gguf"])
def test_casts_are_the_nearest_values(dtype: str, to: str, tmp_path: Path) -> None:
    start = write_checkpoint(source("plain"), tmp_path / "start")
    done = convert(start, tmp_path / "end", to=to, dtype=dtype)
    kind = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    largest = max(float((t - t.to(kind).float()).abs().max()) for n, t in source("plain").tensors() if t.dim() == 2)
    assert done.largest_weight_difference >= largest > 0
    assert done.largest_logit_difference > 0
    assert done.same_next_token > 0.8


def test_q8_0_of_a_real_text_model(chat_checkpoint: Path, tmp_path: Path) -> None:
    done = convert(chat_checkpoint, tmp_path / "m.gguf", to="gguf", dtype="q8_0")
    assert 0 < done.largest_weight_difference < 0.02
    assert done.probe_tokens > 10                        # the text was encoded with the model's tokenizer
    after = load_checkpoint(tmp_path / "m.gguf")
    before = load_checkpoint(chat_checkpoint)
    assert after.tokenizer is not None
    assert after.tokenizer.encode("fox 狐狸") == before.tokenizer.encode("fox 狐狸")
    assert after.chat_template == before.chat_template
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_tokenizer_and_template_travel_through_folders(chat_checkpoint: Path, tmp_path: Path) -> None:
    before = load_checkpoint(chat_checkpoint)
    at: Path = chat_checkpoint
    for to in ("meta", "gguf", "llama2c", "hf"):
        convert(at, tmp_path / to, to=to)
        at = tmp_path / to
        after = load_checkpoint(at)
        assert after.tokenizer is not None
        assert after.tokenizer.encode("Once 我 9", bos=True) == before.tokenizer.encode("Once 我 9", bos=True)
        assert (after.chat_template, after.generation.eos_ids) == (before.chat_template, (2,))
    assert (tmp_path / "llama2c" / "tokenizer.bin").is_file()
    assert (tmp_path / "meta" / "tokenizer.model").read_bytes() == (chat_checkpoint / "tokenizer.model").read_bytes()


def test_a_writer_that_lies_is_found_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = write_checkpoint(source("plain"), tmp_path / "start")
    monkeypatch.setattr(gguf, "to_interleaved", lambda weight, heads: weight)        # forgets the layout
    for end in (tmp_path / "end", tmp_path / "end.gguf"):
        with pytest.raises(CheckpointError, match="read back different"):
            convert(start, end, to="gguf")
    monkeypatch.undo()
    monkeypatch.setattr(q8, "BLOCK_BYTES", 34)
    right = q8.quantise
    monkeypatch.setattr(q8, "quantise", lambda values: right(values * 1.02))
    with pytest.raises(CheckpointError, match="more than rounding explains"):
        convert(start, tmp_path / "end.gguf", to="gguf", dtype="q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["start"]


def test_a_lost_field_a_lost_tokenizer_and_other_logits_are_found(tmp_path: Path, chat_checkpoint: Path) -> None:
    before = source("yarn")
    for update in ({"rope_theta": 9_999.0}, {"norm_eps": 2e-5}, {"rope_scaling": None}, {"sliding_window": 3}):
        other = replace(before, config=before.config.model_copy(update=update))
        with pytest.raises(CheckpointError, match="reloaded config differs"):
            module.compare_weights(before, other, "float32")
    text = open_checkpoint(chat_checkpoint)
    for change, says in (({"open_tokenizer": lambda: None}, "tokenizer"), ({"chat_template": None}, "chat template"),
                         ({"generation": before.generation}, "end ids")):
        with pytest.raises(CheckpointError, match=says):
            module._compare_rest(text, replace(text, **change))
    shifted = replace(before, config=before.config.model_copy(update={"rope_theta": 9_000.0}))
    with pytest.raises(CheckpointError, match="logits differ"):
        module._compare_logits(before, shifted, exact=True)


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    start = write_checkpoint(source("plain"), tmp_path / "start")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="exists"):
        convert(start, mine, to="hf")
    with pytest.raises(ConfigError, match="did not write"):
        convert(start, mine, to="hf", overwrite=True)
    assert (mine / "letter.txt").read_text() == "dear"
    with pytest.raises(ConfigError, match="exists"):
        convert(start, start, to="hf")
    convert(start, tmp_path / "end", to="hf")
    convert(start, tmp_path / "end", to="meta", overwrite=True)
    assert open_checkpoint(tmp_path / "end").format == "meta"


@pytest.mark.parametrize(("to", "end", "dtype", "says"), [
    ("llama2c", "m.bin", None, "folder"), ("hf", "m.gguf", None, "folder"), ("hf", "out", "q8_0", "q8_0"),
    ("onnx", "out", None, "onnx"), ("hf", "out", "int3", "int3")])
def test_wishes_that_make_no_sense(to: str, end: str, dtype: str | None, says: str, tmp_path: Path) -> None:
    start = write_checkpoint(source("plain"), tmp_path / "start")
    with pytest.raises(ConfigError, match=says):
        convert(start, tmp_path / end, to=to, dtype=dtype)
    assert [p.name for p in tmp_path.iterdir()] == ["start"]


def test_the_lists_of_this_test_room_are_complete() -> None:
    assert set(LLAMA2C) <= set(META)
    assert json.dumps(FORMATS) == '["hf", "meta", "llama2c", "gguf"]'
