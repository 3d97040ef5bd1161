"""Conversations from files: every form reads alike, what is learned is exact, and what can't be learned is told."""

import csv
import json

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from ayllu.data.chat_loader import ChatLoader
from ayllu.data.chat_rows import Conversation, conversations, read_row
from ayllu.data.chats import Chats, ChatSource, encode, gather, template_of
from ayllu.data.mask_marks import Marks
from ayllu.data.rows import BadRow, Reject
from ayllu.errors import ConfigError, DataError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer

TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "the fox"},
        {"role": "assistant", "content": "the river"}]
FORMS = [
    {"messages": TALK},
    {"messages": json.dumps(TALK)},
    {"conversations": [{"from": "human", "value": "the fox"}, {"from": "gpt", "value": "the river"}],
     "system": "Be kind."},
    {"instruction": "the fox", "input": "", "output": "the river", "system": "Be kind."},
    {"prompt": "the fox", "completion": "the river", "system": "Be kind."},
    {"prompt": TALK[:2], "completion": TALK[2:]},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return Tokenizer.load(tiny_checkpoint)


def row(*messages):
    return Conversation("x.jsonl", 1, [dict(zip(("role", "content", "weight"), m, strict=False)) for m in messages])


def taught(tokenizer, ids, weights, at=1.0):
    return tokenizer.decode([int(i) for i, w in zip(ids, weights, strict=True) if w == np.float32(at)])


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def rows_like(n, answer="the river and the stars"):
    return [{"prompt": f"the fox {i}", "completion": answer} for i in range(n)]


@pytest.mark.parametrize("table", FORMS)
def test_every_form_gives_the_same_messages(table):
    assert read_row(table)[0] == TALK


def test_an_alpaca_row_with_input_and_history():
    found, _ = read_row({"instruction": "a", "input": "b", "output": "c", "history": [["x", "y"]]})
    assert [m["content"] for m in found] == ["x", "y", "a\n\nb", "c"]
    assert [m["role"] for m in found] == ["user", "assistant"] * 2


def test_calls_of_tools_in_sharegpt():
    call = {"name": "add", "arguments": {"a": 1}}
    found, tools = read_row({"conversations": [{"from": "human", "value": "?"},
                                               {"from": "function_call", "value": json.dumps(call)}], "tools": "[]"})
    assert found[1]["tool_calls"][0]["function"] == call
    assert tools == []


@pytest.mark.parametrize(("table", "what"), [
    ({"text": "a"}, "expected messages, conversations"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "unknown role 'robot'"),
    ({"conversations": [{"from": "alien", "value": "a"}]}, "unknown role 'alien'"),
    ({"messages": [*TALK[:2], {"role": "assistant", "content": " "}]}, "answer is empty"),
    ({"messages": [{"role": "user", "content": 3}]}, "should be a text, found int"),
    ({"messages": "oops"}, "no JSON"),
    ({"instruction": 3, "output": "a", "input": "b"}, "should be a text, found int"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text can be learned from"),
    ({"messages": [{"role": "assistant", "content": "a", "weight": 7}]}, "from 0 to 1"),
    ({"conversations": [{"from": ["gpt"], "value": "a"}]}, r"unknown role \"\['gpt'\]\""),
    ({"instruction": "a", "output": "b", "history": [3]}, "`history` should be a list of pairs"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "only text can be learned from"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 4}]}]}, "only text can be learned from"),
    ({"prompt": "a", "completion": None}, "nothing in 'completion'"),
])
def test_rows_that_are_no_conversation(table, what):
    with pytest.raises(BadRow, match=what):
        read_row(table)


def test_files_of_every_kind_read_alike(tmp_path):
    write(tmp_path, [{"messages": TALK}])
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": TALK}]), encoding="utf-8")
    with open(tmp_path / "rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(TALK)]])
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": TALK}]), tmp_path / "rows.parquet")
    found = list(conversations(tmp_path, "data"))
    assert {r.file for r in found} == {f"data/rows.{kind}" for kind in ("jsonl", "json", "csv", "parquet")}
    assert all(r.messages == TALK for r in found)


def test_columns_of_other_names_and_what_is_unreadable(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\na,b\nc\n", encoding="utf-8")
    good, bad = conversations(path, "rows.csv", renamed={"prompt": "question", "completion": "answer"})
    assert [m["content"] for m in good.messages] == ["a", "b"]
    assert isinstance(bad, Reject)
    assert (bad.line, "1 cells" in bad.reason) == (3, True)
    (tmp_path / "rows.json").write_text("[{", encoding="utf-8")
    assert next(conversations(tmp_path / "rows.json", "r")).reason.startswith("can't be read as JSON")


def test_only_answers_are_learned_with_their_ends(tokenizer):
    template = ChatTemplate.named("llama2")
    talk = row(("user", "the fox"), ("assistant", "the river"), ("user", "and"), ("assistant", "the stars"))
    ids, weights = encode(talk, tokenizer, template)
    assert taught(tokenizer, ids, weights) == "the river </s> the stars </s>"
    assert taught(tokenizer, *encode(talk, tokenizer, template, learn="last")) == "the stars </s>"
    _, weights = encode(talk, tokenizer, template, prompt_weight=0.25)
    assert set(weights.tolist()) == {0.0, 0.25, 1.0}
    assert (weights == 0).tolist() == [True] + [False] * (len(ids) - 1)      # nothing predicts the first id


def test_a_turn_may_have_its_own_weight(tokenizer):
    talk = row(("user", "a"), ("assistant", "the river", 0), ("user", "b"), ("assistant", "the stars", 0.5))
    ids, weights = encode(talk, tokenizer, ChatTemplate.named("llama2"))
    assert taught(tokenizer, ids, weights, 0.5) == "the stars </s>"
    assert not (weights == 1).any()


def test_plain_text_learns_the_completion_and_eos(tokenizer):
    ids, weights = encode(row(("user", "the fox"), ("assistant", " and the bird")), tokenizer, None)
    assert ids[0] == tokenizer.bos_id
    assert taught(tokenizer, ids, weights) == "and the bird</s>"
    with pytest.raises(BadRow, match="one prompt and one completion"):
        encode(row(("assistant", "a")), tokenizer, None)


@pytest.mark.parametrize(("messages", "what"), [
    ([("user", "a")], "no message is an assistant's"),
    ([("user", "a"), ("assistant", "b", 0)], "teaches nothing"),
    ([("user", "<s>[x] a"), ("assistant", "b")], "BOS would stand twice"),
])
def test_samples_that_teach_nothing_or_begin_twice(tokenizer, messages, what):
    with pytest.raises(BadRow, match=what):
        encode(row(*messages), tokenizer, ChatTemplate.named("llama2"))


def test_a_template_that_doubles_bos(tokenizer):
    template = ChatTemplate("{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}"
                            "{% endfor %}")
    with pytest.raises(BadRow, match="twice in a row"):
        encode(row(("user", "a"), ("assistant", "b")), tokenizer, template)


def gathered(folder, tokenizer, context=64, template="llama2", **options):
    config = Chats(sources=(ChatSource(path="rows.jsonl"),), template=template, **options)
    return gather(config, folder, tokenizer, template_of(template, tokenizer, folder), context)


def test_a_bad_row_stops_with_file_and_number_or_is_counted(tokenizer, tmp_path):
    write(tmp_path, [*rows_like(5), {"prompt": "a", "completion": ""}, {"text": "b"}])
    with pytest.raises(DataError, match=r"2 of 7 rows can't be learned from. rows.jsonl, row 6: message 1: the answer"):
        gathered(tmp_path, tokenizer, held_out=0)
    found = gathered(tmp_path, tokenizer, held_out=0, bad_rows="drop")
    assert (found.total["kept"], found.total["bad_rows"], found.total["teach_the_end"]) == (5, 2, 5)
    assert [r.line for r in found.rejects] == [6, 7]


def test_an_error_names_the_rows_that_it_is_about(tokenizer, tmp_path):
    long = {"prompt": "the fox", "completion": "the river " * 60}
    write(tmp_path, [*rows_like(3), long, {"prompt": "a", "completion": ""}, long])
    with pytest.raises(DataError, match=r"1 of 6 rows can't be learned from. rows.jsonl, row 5: [^;]*Correct"):
        gathered(tmp_path, tokenizer, 40, held_out=0)
    with pytest.raises(DataError, match=r"2 of 6 samples are longer .* row 4: [^;]*; rows.jsonl, row 6: [^;]*Choose"):
        gathered(tmp_path, tokenizer, 40, held_out=0, bad_rows="drop")


def test_an_empty_file_is_named_also_beside_others(tokenizer, tmp_path):
    write(tmp_path, rows_like(5))
    for name, text in (("empty.jsonl", ""), ("header.csv", "prompt,completion\n"), ("list.json", "[]")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        config = Chats(sources=(ChatSource(path="rows.jsonl"), ChatSource(path=name)), held_out=0)
        with pytest.raises(DataError, match=f"{name} holds no row"):
            gather(config, tmp_path, tokenizer, ChatTemplate.named("llama2"), 64)


def test_a_sample_is_never_cut_unless_a_policy_was_chosen(tokenizer, tmp_path):
    write(tmp_path, [*rows_like(3), {"prompt": "the fox", "completion": "the river " * 60}])
    with pytest.raises(DataError, match=r"1 of 4 samples are longer .* row 4: \d+ ids, a window of context=40"):
        gathered(tmp_path, tokenizer, 40, held_out=0)
    found = gathered(tmp_path, tokenizer, 40, held_out=0, too_long="drop")
    assert (found.total["too_long"], len(found.train.starts)) == (1, 3)
    split = gathered(tmp_path, tokenizer, 40, held_out=0, too_long="split")
    assert split.total["split"] == 1
    whole = gathered(tmp_path, tokenizer, 400, held_out=0)
    assert split.train.learned == whole.train.learned    # every id of the answer is still learned once
    sizes = np.diff(np.append(split.train.starts, len(split.train.ids)))
    assert sizes.max() == 41


def test_it_says_when_no_sample_teaches_the_end(tokenizer, chat_checkpoint, tmp_path):
    write(tmp_path, rows_like(4))
    source = (chat_checkpoint / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "endless.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(DataError, match=r"none of 4 samples teaches where an answer ends \(</s>\)"):
        gathered(tmp_path, tokenizer, template="endless.jinja", held_out=0)


def test_a_base_model_needs_a_template_that_is_named(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"Set data.template"):
        template_of("auto", tokenizer, tmp_path)
    with pytest.raises(ConfigError, match="no file at"):
        template_of("nothing", tokenizer, tmp_path)


def test_equal_conversations_are_on_one_side(tokenizer, tmp_path):
    write(tmp_path, rows_like(60) * 2)
    found = gathered(tmp_path, tokenizer, held_out=0.3)
    total = found.total
    assert total["kept"] % 2 == total["kept_held_out"] % 2 == 0
    assert 10 < total["kept_held_out"] < 70

    def texts(side):
        return {tuple(part.tolist()) for part in np.split(side.ids, side.starts[1:])}
    assert not texts(found.train) & texts(found.held_out)


@pytest.mark.parametrize("kind", ["best_fit", "none"])
def test_an_epoch_teaches_every_answer_once_in_its_own_document(tokenizer, tmp_path, kind):
    write(tmp_path, [{"prompt": f"the fox {i}", "completion": "river " * (i % 7 + 1)} for i in range(40)])
    encoded = gathered(tmp_path, tokenizer, held_out=0).train
    loader = ChatLoader(encoded, Marks.of(tokenizer), 64, 1, kind=kind)
    assert (len(loader.packing) == 40) == (kind == "none")
    learned = []
    for step in range(len(loader.packing)):
        batch = loader.batch(step)
        for number in batch.document[0].unique().tolist():
            here = batch.document[0] == number
            assert batch.positions[0][here].tolist() == list(range(int(here.sum()))) or number < 0
            if number >= 0:
                learned.append(tuple(batch.labels[0][here & (batch.weights[0] > 0)].tolist()))
    expected = [tuple(ids[w > 0].tolist()) for ids, w in zip(np.split(encoded.ids, encoded.starts[1:]),
                                                              np.split(encoded.weights, encoded.starts[1:]),
                                                              strict=True)]
    assert sorted(learned) == sorted(expected)


def test_ranks_take_turns_and_a_batch_that_teaches_nothing_stops(tokenizer, tmp_path):
    write(tmp_path, rows_like(30))
    encoded = gathered(tmp_path, tokenizer, held_out=0).train
    marks = Marks.of(tokenizer)
    whole = ChatLoader(encoded, marks, 64, 4).batch(1)
    halves = [ChatLoader(encoded, marks, 64, 4, rank=r, world_size=2).batch(1) for r in range(2)]
    assert whole.ids[0::2].equal(halves[0].ids)
    assert whole.ids[1::2].equal(halves[1].ids)
    silent = type(encoded)(encoded.ids, encoded.weights * 0, encoded.starts)
    with pytest.raises(DataError, match="batch of step 0 teaches nothing"):
        ChatLoader(silent, marks, 64, 4).batch(0)
