"""Preferences are read in each of their forms, their ids split where the answer begins, and bad rows are named."""

import json

import numpy as np
import pytest

from ayllu.data.pair_loader import PairLoader, crossed
from ayllu.data.pairs import Pairs, encode_preference, gather_pairs
from ayllu.data.preference_rows import Preference, read_preference
from ayllu.data.rows import BadRow
from ayllu.errors import DataError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer

USER = [{"role": "user", "content": "the fox"}]
HH = "\n\nHuman: hello\n\nAssistant: who?\n\nHuman: the fox\n\nAssistant:"
TURNS = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "who?"}, *USER]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return Tokenizer.load(tiny_checkpoint)


def said(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("row", [
    {"prompt": "the fox", "chosen": "a", "rejected": "b"},
    {"prompt": USER, "chosen": "a", "rejected": "b"},
    {"prompt": USER, "chosen": said("a"), "rejected": said("b")[0]},
    {"prompt": USER, "chosen": USER + said("a"), "rejected": USER + said("b")},
    {"chosen": USER + said("a"), "rejected": USER + said("b")},
    {"prompt": json.dumps(USER), "chosen": json.dumps(said("a")), "rejected": "b"},
    {"chosen": "\n\nHuman: the fox\n\nAssistant: a", "rejected": "\n\nHuman: the fox\n\nAssistant: b"},
])
def test_all_forms_are_one(row):
    assert read_preference(row) == (USER, "a", "b")


def test_a_dialogue_in_one_text_becomes_turns_or_stays():
    row = {"chosen": f"{HH} a", "rejected": f"{HH} b"}
    assert read_preference(row) == (TURNS, "a", "b")
    assert read_preference(row, keeps_text=True) == ([{"role": "user", "content": HH}], " a", " b")
    assert read_preference({"prompt": HH, "chosen": "a", "rejected": "b"}) == (TURNS, "a", "b")


def test_verdicts_and_names_of_columns():
    row = {"q": "the fox", "completion": "a", "label": "False"}
    assert read_preference(row, {"prompt": "q"}) == (USER, None, "a")
    assert read_preference({"prompt": USER, "completion": said("a"), "label": 1}) == (USER, "a", None)


@pytest.mark.parametrize(("row", "what"), [
    ({"prompt": "x", "chosen": "a"}, "the row has prompt, chosen"),
    ({"prompt": "x", "chosen": "a", "rejected": "a"}, "the same text"),
    ({"prompt": "x", "chosen": " ", "rejected": "a"}, "`chosen` is empty"),
    ({"prompt": "x", "chosen": "a", "rejected": ""}, "`rejected` is empty"),
    ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt should be a text"),
    ({"prompt": said("x"), "chosen": "a", "rejected": "b"}, "ends with an assistant's"),
    ({"prompt": [{"role": "robot", "content": "x"}], "chosen": "a", "rejected": "b"}, "unknown role 'robot'"),
    ({"prompt": USER, "chosen": TURNS + said("a"), "rejected": "b"}, "nothing else but the prompt"),
    ({"chosen": USER + said("a"), "rejected": TURNS + said("b")}, "different prompts"),
    ({"chosen": "a", "rejected": "b"}, "of the form"),
    ({"prompt": "x", "completion": "a", "label": "perhaps"}, "true or false, found 'perhaps'"),
    ({"prompt": "x", "chosen": None, "rejected": "b"}, "nothing in chosen"),
])
def test_what_says_nothing_is_refused(row, what):
    with pytest.raises(BadRow, match=what):
        read_preference(row)


def test_answers_begin_where_the_prompt_ends(tokenizer):
    template = ChatTemplate.named("llama2")
    found = encode_preference(Preference("f", 1, USER, "the river", "the stars and the bird"), tokenizer, template)
    prompt = template.render(USER, tokenizer, add_generation_prompt=True).ids
    for answer, text in zip(found.answers, ("the river", "the stars and the bird"), strict=True):
        assert answer.ids[:answer.start].tolist() == prompt
        assert answer.ids[-1] == tokenizer.eos_ids[0]
        assert tokenizer.decode(answer.ids[answer.start:-1].tolist()).strip() == text
    plain = encode_preference(Preference("f", 1, USER, " river", "es of the river"), tokenizer, None)
    good, bad = plain.answers                            # "foxes" may be one piece: both begin where the first differs
    assert good.start == bad.start
    assert np.array_equal(good.ids[:good.start], bad.ids[:bad.start])
    with pytest.raises(BadRow, match="use method=kto"):
        encode_preference(Preference("f", 1, USER, "a", None), tokenizer, template)


def test_a_prompt_that_the_template_writes_otherwise_is_refused(tokenizer):
    by_answer = ChatTemplate("{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
                             "{{ m.content }}{% endgeneration %}{% else %}{{ messages|length }} {{ m.content }}"
                             "{% endif %}{% endfor %}")
    with pytest.raises(BadRow, match="the ids of the prompt alone"):
        encode_preference(Preference("f", 1, USER, "the river", "the stars"), tokenizer, by_answer)


@pytest.fixture
def gathered(tokenizer, tmp_path):
    def make(rows, context=64, **settings):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        config = Pairs.model_validate({"sources": [{"path": "pairs.jsonl"}], "held_out": 0, **settings})
        return gather_pairs(config, tmp_path, tokenizer, ChatTemplate.named("llama2"), context, True)
    return make


def rows(n):
    return [{"prompt": f"the fox {i // 2}", "chosen": f"river {i}", "rejected": "the stars"} for i in range(n)]


def test_nothing_is_passed_over_in_silence(gathered):
    bad = [*rows(4), {"prompt": "x", "chosen": "a", "rejected": "a"}]
    with pytest.raises(DataError, match=r"1 of 5 rows.*pairs.jsonl, row 5: chosen and rejected are the same"):
        gathered(bad)
    found = gathered(bad, bad_rows="drop")
    assert (len(found.train), found.total["bad_rows"], found.rejects[0].line) == (4, 1, 5)
    long = [*rows(4), {"prompt": "x", "chosen": "a", "rejected": "the bird " * 80}]
    with pytest.raises(DataError, match=r"would be cut.*row 5.*data.too_long=drop, data.too_long=cut"):
        gathered(long)
    assert gathered(long, too_long="drop").total["too_long"] == 1
    with pytest.raises(DataError, match=r"1 of 6 rows can't be learned from. pairs.jsonl, row 6: chosen and rejected"):
        gathered([*long, bad[-1]], too_long="drop")      # not the row that is left out for its length
    cut = gathered(long, too_long="cut")
    assert (cut.total["cut"], len(cut.train[4].bad.ids), len(cut.train)) == (1, 65, 5)
    with pytest.raises(DataError, match="came to none"):
        gathered(rows(2), held_out=1e-9)


def test_one_prompt_is_on_one_side(gathered):
    found = gathered(rows(60), held_out=0.4)
    both = [{tuple(a.ids[:a.start]) for row in side for a in row.answers} for side in (found.train, found.held_out)]
    assert both[0]
    assert both[1]
    assert not both[0] & both[1]
    assert found.digest != gathered(rows(60), held_out=0.3).digest


def test_batches_are_a_function_of_the_step_and_ranks_share_them(gathered):
    train = gathered(rows(10)).train
    whole = PairLoader(train, 64, 4, seed=3)
    halves = [PairLoader(train, 64, 4, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    for step in (0, 7):
        names = [row.row for row in whole.batch(step).rows]
        assert names == [row.row for row in PairLoader(train, 64, 4, seed=3).batch(step).rows]
        assert [names[0::2], names[1::2]] == [[row.row for row in half.batch(step).rows] for half in halves]
    others = crossed(train, 64)
    for row, other in zip(train, others, strict=True):
        assert np.array_equal(other.ids[:other.start], row.good.ids[:row.good.start])
        assert not np.array_equal(other.ids[other.start:], row.good.ids[row.good.start:])
