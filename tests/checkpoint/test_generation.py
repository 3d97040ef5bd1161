"""generation_config.json: end ids and sampling defaults with Hugging Face's meaning."""

import json
from pathlib import Path

import pytest
from checkpoint.models import source
from transformers import GenerationConfig

from ayllu.checkpoint.generation import GenerationDefaults, generation_from_hf, generation_to_hf
from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.save import FORMATS, write_checkpoint
from ayllu.errors import CheckpointError
from ayllu.model.sample import SamplingParams

LLAMA3 = {"bos_token_id": 128000, "do_sample": True, "eos_token_id": [128001, 128008, 128009], "temperature": 0.6,
          "top_p": 0.9, "transformers_version": "4.42.3", "max_length": 4096}


def test_llama_3() -> None:
    found = generation_from_hf(LLAMA3, {"eos_token_id": 5, "pad_token_id": 7}, "x")
    assert (found.bos_id, found.eos_ids, found.pad_id) == (128000, (128001, 128008, 128009), 7)
    assert found.sampling() == {"temperature": 0.6, "top_p": 0.9}
    assert SamplingParams(**found.sampling()).temperature == 0.6


def test_config_json_fills_in_and_minus_one_is_none() -> None:
    found = generation_from_hf(None, {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1}, "x")
    assert found == GenerationDefaults(bos_id=1, eos_ids=(2,))
    assert found.sampling() == {}


def test_a_file_that_does_not_sample_is_greedy_and_its_temperature_ignored() -> None:
    raw = {"do_sample": False, "temperature": 0.7, "repetition_penalty": 1.1, "max_new_tokens": 9}
    assert generation_from_hf(raw, {}, "x").sampling() == {"temperature": 0.0, "repetition_penalty": 1.1,
                                                           "max_tokens": 9}


@pytest.mark.parametrize("value", ["2", [1, "2"], 2.5, True, {}])
def test_ids_that_are_none(value: object) -> None:
    with pytest.raises(CheckpointError, match="there: eos_token_id"):
        generation_from_hf({"eos_token_id": value}, {}, "there")


@pytest.mark.parametrize("to", FORMATS)
def test_it_travels(to: str, tmp_path: Path) -> None:
    before = generation_from_hf({**LLAMA3, "eos_token_id": [3, 4], "bos_token_id": 1}, {}, "x")
    found = open_checkpoint(write_checkpoint(source("plain", generation=before), tmp_path / "out", to=to)).generation
    assert found == before


def test_transformers_reads_what_we_write(tmp_path: Path) -> None:
    before = GenerationDefaults(bos_id=1, eos_ids=(2, 3), pad_id=0)
    folder = write_checkpoint(source("plain", generation=before), tmp_path / "out")
    theirs = GenerationConfig.from_pretrained(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, [2, 3], 0)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == [2, 3]
    assert generation_to_hf(GenerationDefaults()) == {}
