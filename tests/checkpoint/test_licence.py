"""The licence record: found, written, kept through every format, in plain words."""

import json
from pathlib import Path

import pytest
from checkpoint.models import source

from ayllu.checkpoint.licence import Licence, licence_by_id, licence_of, own_licence, write_licence
from ayllu.checkpoint.licence_terms import TERMS
from ayllu.checkpoint.load import open_checkpoint
from ayllu.checkpoint.save import FORMATS, write_checkpoint
from ayllu.errors import CheckpointError

LLAMA2_NOTICE = ("Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. "
                 "All Rights Reserved.")
TEXTS = {"LICENSE.txt": "LLAMA 2 COMMUNITY LICENSE AGREEMENT ...", "USE_POLICY.md": "# Policy 政策\n"}


@pytest.mark.parametrize("id", TERMS)
def test_every_licence_speaks_both_languages(id: str) -> None:
    licence = licence_by_id(id)
    assert licence.name
    assert licence.url.startswith("https://")
    assert len(licence.duties_en) == len(licence.duties_zh) >= 1
    for lang in ("en", "zh"):
        assert licence.name in licence.plain_words(lang)
    assert any(0x4E00 <= ord(c) <= 0x9FFF for c in "".join(licence.duties_zh))
    assert "{" not in "".join([*licence.duties_en, *licence.duties_zh])


def test_llama_2_asks_what_it_asks() -> None:
    words = licence_by_id("llama2").plain_words()
    assert LLAMA2_NOTICE in words
    assert "improve any other large language model" in words
    assert "Built with" not in words                     # Llama 3 and later ask for that, Llama 2 does not
    assert "Built with Llama" in licence_by_id("llama3.1").plain_words()
    assert "improve any other" not in licence_by_id("llama3.1").plain_words()


@pytest.mark.parametrize(("text", "id"), [
    ("LLAMA 2 COMMUNITY LICENSE AGREEMENT\nLlama 2 Version Release Date", "llama2"),
    ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"), ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "llama3.1"),
    ("LLAMA 3.2 COMMUNITY\n   LICENSE AGREEMENT", "llama3.2"), ("  Apache License\n  Version 2.0", "apache-2.0"),
    ("MIT License\n\nCopyright", "mit"), ("something of our own", "other")])
def test_found_in_the_text(text: str, id: str, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(text)
    licence, texts = licence_of(tmp_path)
    assert licence is not None
    assert (licence.id, licence.found_in) == (id, "LICENSE")
    assert texts == {"LICENSE": text}


def test_the_card_goes_before_the_text_and_our_record_before_both(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == (None, {})
    (tmp_path / "LICENSE").write_text("Apache License")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: nice-1\nlicense_link: https://x.example/\n"
                                        "base_model: a/b\n---\nlicense: mit\n")
    card, _ = licence_of(tmp_path)
    assert card == Licence(id="nice-1", name="nice-1", url="https://x.example/", found_in="README.md",
                           derived_from=("a/b",))
    assert "read its text before use" in card.plain_words()
    write_licence(tmp_path, licence_by_id("mit").derived("c/d"), {})
    assert licence_of(tmp_path)[0] == licence_by_id("mit").derived("c/d")
    (tmp_path / "ayllu_licence.json").write_text('{"id": 3}')
    with pytest.raises(CheckpointError, match=r"ayllu_licence\.json"):
        licence_of(tmp_path)


def test_a_licence_beside_a_lone_file_is_not_taken_for_its_own(tmp_path: Path) -> None:
    path = write_checkpoint(source("plain"), tmp_path / "m.gguf", to="gguf")
    (tmp_path / "LICENSE").write_text("MIT License")
    assert own_licence(tmp_path) == (None, {})
    assert open_checkpoint(path).licence is None


@pytest.mark.parametrize("to", FORMATS)
def test_it_travels_through_every_format(to: str, tmp_path: Path) -> None:
    licence = licence_by_id("llama2").derived("meta-llama/Llama-2-7b-hf")
    folder = write_checkpoint(source("plain", licence=licence, licence_texts=TEXTS), tmp_path / "a", to=to)
    found = open_checkpoint(folder)
    assert found.licence == licence
    assert {n: found.licence_texts[n] for n in TEXTS} == TEXTS
    assert (folder / "Notice").read_text() == LLAMA2_NOTICE + "\n"
    back = write_checkpoint(found, tmp_path / "b")
    assert json.loads((back / "ayllu_licence.json").read_text())["id"] == "llama2"
    assert (back / "USE_POLICY.md").read_text() == TEXTS["USE_POLICY.md"]
    lone = write_checkpoint(found, tmp_path / "lone.gguf", to="gguf")
    assert open_checkpoint(lone).licence == licence      # all in one file
    assert TEXTS.items() <= open_checkpoint(lone).licence_texts.items()


def test_a_notice_that_is_there_is_kept(tmp_path: Path) -> None:
    write_licence(tmp_path, licence_by_id("llama2"), {"NOTICE.txt": "mine"})
    assert (tmp_path / "NOTICE.txt").read_text() == "mine"
    assert not (tmp_path / "Notice").exists()


def test_names_of_texts_cannot_lead_outside(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leads out"):
        write_licence(tmp_path / "x", None, {"../LICENSE": "evil"})
