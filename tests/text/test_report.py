"""Bytes per token."""

import kinds
from kinds import SAMPLE

from ayllu.text.report import SAMPLES, compare, first_difference, hard_texts, spell


def test_counts():
    tokenizer = kinds.sentencepiece()
    found = spell(tokenizer, ["𐍈", "Once"])
    rows = tokenizer.encode("𐍈") + tokenizer.encode("Once")
    assert (found.texts, found.bytes, found.tokens, found.part_tokens) == (2, 8, len(rows), 4)
    assert found.bytes_per_token == 8 / len(rows)
    assert found.part_share == 4 / len(rows)
    assert spell(tokenizer, []).bytes_per_token == 0


def test_a_vocabulary_spells_its_own_text_best():
    table = compare({"a": kinds.sentencepiece(), "b": kinds.llama3()}, {"own": [SAMPLE], **SAMPLES})
    assert set(table) == {"own", *SAMPLES}
    assert all(row["a"].bytes == row["b"].bytes for row in table.values())
    assert table["own"]["a"].bytes_per_token > table["hi"]["a"].bytes_per_token


def test_differences_are_found():
    texts = hard_texts([SAMPLE])
    assert first_difference(kinds.sentencepiece(), kinds.sentencepiece_json(), texts) is None
    assert first_difference(kinds.sentencepiece(), kinds.llama3(), texts) is not None
