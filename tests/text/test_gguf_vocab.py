"""Tokenizers as GGUF metadata, there and back, and from a real vocabulary-only file."""

import json

import kinds
import pytest
from kinds import LLAMA2C, SAMPLE, TRICKY

from ayllu.errors import CheckpointError
from ayllu.text.hf import HfCodec
from ayllu.text.tokenizer import Tokenizer

P = "tokenizer.ggml."


def read_metadata() -> dict:
    from gguf import GGUFReader

    reader = GGUFReader(LLAMA2C / "ggml-vocab-llama-spm.gguf")
    return {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}


def test_a_real_file_gives_the_ids_of_its_conformance_cases():
    kinds.needs_llama2()
    tokenizer = Tokenizer.from_gguf(read_metadata())
    texts = (LLAMA2C / "ggml-vocab-llama-spm.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    rows = (LLAMA2C / "ggml-vocab-llama-spm.gguf.out").read_text().splitlines()
    for text, row in zip(texts, rows, strict=False):
        assert tokenizer.encode(text) == [int(i) for i in row.split()]
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.unk_id) == (1, (2,), 0)
    assert tokenizer.fingerprint == kinds.llama2().fingerprint


@pytest.mark.parametrize("kind", ["sentencepiece", "llama3", "qwen"])
def test_there_and_back(kind):
    tokenizer = kinds.KINDS[kind]()
    tokenizer.chat_template = "{{ messages }}"
    try:
        metadata = json.loads(json.dumps(tokenizer.gguf_metadata()))     # plain values only
    finally:
        tokenizer.chat_template = None
    again = Tokenizer.from_gguf(metadata)
    assert again.chat_template == "{{ messages }}"
    assert (again.bos_id, again.pad_id, again.unk_id, again.add_bos, again.vocab_size) == (
        tokenizer.bos_id, tokenizer.pad_id, tokenizer.unk_id, tokenizer.add_bos, tokenizer.vocab_size)
    assert again.eos_ids[0] == tokenizer.eos_ids[0]
    assert again.special_ids == tokenizer.special_ids
    for text in [*TRICKY, SAMPLE, *SAMPLE.split("\n")]:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
    assert again.gguf_metadata() == metadata


def test_the_gguf_package_can_write_it(tmp_path):
    import gguf

    metadata = kinds.sentencepiece().gguf_metadata()
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_tokenizer_model(metadata[P + "model"])
    writer.add_token_list(metadata[P + "tokens"])
    writer.add_token_scores(metadata[P + "scores"])
    writer.add_token_types(metadata[P + "token_type"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    read = gguf.GGUFReader(tmp_path / "v.gguf")
    assert read.fields[P + "tokens"].contents() == metadata[P + "tokens"]


def test_without_a_dummy_prefix():
    metadata = kinds.sentencepiece().gguf_metadata() | {P + "add_space_prefix": False}
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.encode("Once") == kinds.sentencepiece().encode("Once")[1:] or (
        tokenizer.decode(tokenizer.encode("Once")) == "Once")
    assert tokenizer.decode(tokenizer.encode(" Once")) == " Once"


def without(name: str) -> dict:
    metadata = kinds.sentencepiece().gguf_metadata()
    metadata.pop(P + name)
    return metadata


@pytest.mark.parametrize(("change", "says"), [
    ({P + "tokens": []}, "no tokenizer"), ({P + "model": "bert"}, "'bert'"), ({P + "scores": [0.0]}, "1 entries"),
    ({P + "bos_token_id": 5000}, "outside"), ({P + "token_type": [1] * 900}, "unknown piece"),
])
def test_damaged_metadata(change, says):
    with pytest.raises(CheckpointError, match=says):
        Tokenizer.from_gguf(kinds.sentencepiece().gguf_metadata() | change)


def test_scores_are_needed():
    with pytest.raises(CheckpointError, match="scores is missing"):
        Tokenizer.from_gguf(without("scores"))


def test_an_unknown_rule_for_words_is_refused():
    with pytest.raises(CheckpointError, match="'odd'"):
        Tokenizer.from_gguf(kinds.llama3().gguf_metadata() | {P + "pre": "odd"})
    table = kinds.qwen_json()
    table["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    with pytest.raises(CheckpointError, match="known rule"):
        Tokenizer(HfCodec(json.dumps(table))).gguf_metadata()


def test_a_merge_of_unknown_parts_is_refused():
    metadata = kinds.llama3().gguf_metadata()
    metadata[P + "merges"] = ["zzzz qqqq"]
    with pytest.raises(CheckpointError, match="zzzz qqqq"):
        Tokenizer.from_gguf(metadata)
