"""recipes/mini_chat: what is taught and what is asked stay apart, and sums, passages and splits say what is true."""

import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script; its siblings are imported by their bare names."""
    sys.path.insert(0, str(ROOT / "recipes" / "mini_chat"))
    import make

    return make


def test_each_sum_is_right_and_held_out_in_all_its_phrasings(make):
    chats = list(make.sums.chats(random.Random(0)))
    signs = {"+": int.__add__, "-": int.__sub__, "×": int.__mul__, "÷": int.__floordiv__}
    sides: dict[str, set[bool]] = {}
    for chat in chats:
        a, sign, b, equals, result = chat.answer.split()
        assert (equals, int(result)) == ("=", signs[sign](int(a), int(b))), chat.answer
        assert chat.facts["expected"] == result
        sides.setdefault(chat.answer, set()).add(chat.held_out)
    assert all(len(side) == 1 for side in sides.values())
    assert 0.01 < sum(True in side for side in sides.values()) / len(sides) < 0.06


@pytest.mark.parametrize("language", ["en", "zh"])
def test_made_passages_hold_their_answers_or_say_that_they_do_not(make, language):
    rng = random.Random(1)
    chats = [make.passages._made(language, rng, False) for _ in range(500)]
    unknown = make.passages.UNKNOWN[language]
    assert all(chat.answer in chat.asked for chat in chats if chat.answer != unknown)
    assert 0.05 < sum(chat.answer == unknown for chat in chats) / len(chats) < 0.2


def test_sentences_keep_their_quotation_marks(make):
    from rows import sentences

    assert sentences("“来。”他说。“好！”", "zh") == ["“来。”", "他说。", "“好！”"]
    assert sentences("He came. “Go!” She went.", "en") == ["He came.", "“Go!”", "She went."]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the folder shared/data beside the project")
def test_nothing_that_is_asked_was_taught_and_every_source_has_a_licence(make, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make.py", "--data", str(DATA), "--out", str(tmp_path)])
    make.main()
    held = [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text("utf-8").splitlines()]
    taught = [json.loads(line)["messages"] for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    asked = {m["content"] for messages in taught for m in messages if m["role"] == "user"}
    assert len(held) == 500
    assert not asked & {row["messages"][0]["content"] for row in held}
    english = {row["expected"] for row in held if row["kind"] == "translate" and row["language"] == "en"}
    said = {m["content"] for messages in taught for m in messages if m["role"] == "assistant"}
    assert not english & said                            # nor the other direction of a pair, or its other wordings
    assert set(json.loads((tmp_path / "counts.json").read_text("utf-8"))["sources"]) <= set(make.LICENCES)
