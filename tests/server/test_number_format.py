"""In which number format a model is served where nobody says."""

import logging

import pytest
import torch

from ayllu.checkpoint.convert import convert
from ayllu.engine.step_native import NativeStep
from ayllu.server import number_format
from ayllu.server.number_format import multiplies_bfloat16, served_dtype
from ayllu.server.start import load_served

CPU = torch.device("cpu")


@pytest.fixture
def fast(monkeypatch):
    """As on a processor that multiplies bfloat16."""
    monkeypatch.setattr(number_format.build, "multiplies_bfloat16", lambda: True)


@pytest.fixture(scope="module")
def files(tiny_checkpoint, tmp_path_factory):
    """The same model in Hugging Face's form (float32), and as GGUF in 8, 16 and 32 bits."""
    folder, found = tmp_path_factory.mktemp("formats"), {"hf": str(tiny_checkpoint)}
    for dtype in ("q8_0", "float16", "float32"):
        found[dtype] = str(convert(tiny_checkpoint, folder / f"{dtype}.gguf", to="gguf", dtype=dtype).path)
    return found


def test_eight_bits_become_bfloat16_and_it_is_said(fast, files, caplog):
    with caplog.at_level(logging.INFO):
        assert served_dtype(files["q8_0"], CPU) == "bfloat16"
    said = caplog.text
    assert "Q8_0" in said
    assert "--dtype float32" in said


def test_what_the_file_holds_in_a_format_of_its_own_stays(fast, files, caplog):
    with caplog.at_level(logging.INFO):
        assert [served_dtype(files[kind], CPU) for kind in ("hf", "float16", "float32")] == [None] * 3
    assert not caplog.text


def test_where_bfloat16_is_not_fast_nothing_is_rounded(files, monkeypatch):
    monkeypatch.setattr(number_format.build, "multiplies_bfloat16", lambda: False)
    assert served_dtype(files["q8_0"], CPU) is None
    assert not multiplies_bfloat16(torch.device("mps"))


def test_a_dtype_that_was_asked_for_counts(fast, files):
    assert load_served(files["q8_0"], dtype="float32").dtype == "float32"
    assert load_served(files["q8_0"]).dtype == "bfloat16"


def test_the_bundled_model_is_served_by_whole_steps_in_cpp():
    assert isinstance(load_served("ayllu-mini-chat").service.engine.paths.step, NativeStep)
