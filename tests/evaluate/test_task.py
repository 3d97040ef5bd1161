"""Tasks: what a TOML file may say, how rows become items, and what is refused with file and row."""

import json
import random

import pytest
from pydantic import ValidationError

from ayllu.config import ConfigError
from ayllu.errors import DataError
from ayllu.evaluate.rules import keeps
from ayllu.evaluate.task import BUILT_IN, Task, built_in, find_tasks, is_test, load_items

CHOICE = {"file": "rows.jsonl", "kind": "choice", "prompt": "{{ q }}", "options": "o", "answer": "a"}


def rows_in(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return folder


def test_options_by_number_by_text_and_by_label(tmp_path):
    rows_in(tmp_path, [{"q": "a?", "o": ["x", "y"], "a": 1}, {"q": "b?", "o": ["5", "3"], "a": "3"}])
    items = load_items("t", Task(**CHOICE), tmp_path)
    assert [(i.prompt, i.options, i.expected) for i in items] == [("a?", ("x", "y"), 1), ("b?", ("5", "3"), 1)]
    labels = Task(**{**CHOICE, "kind": "classify", "options": {"neg": "bad", "pos": "good"}})
    rows_in(tmp_path, [{"q": "a?", "a": "pos"}])
    assert load_items("t", labels, tmp_path)[0].expected == 1
    rows_in(tmp_path, [{"q": "a?", "a": "neutral"}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: the answer 'neutral' is none of the options: neg, pos"):
        load_items("t", labels, tmp_path)


def test_limit_is_a_draw_and_ids_tell_rows_apart(tmp_path):
    rows_in(tmp_path, [{"q": str(i % 30), "o": ["x", "y"], "a": 0} for i in range(60)])      # each row twice
    task = Task(**CHOICE)
    items = load_items("t", task, tmp_path)
    assert len({i.id for i in items}) == 60
    some = [load_items("t", task, tmp_path, limit=10, seed=s) for s in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert [i.id for i in some[0]] != [i.id for i in items[:10]]


def test_examples_are_never_items(tmp_path):
    rows_in(tmp_path, [{"q": f"q{i}", "o": ["x", "y"], "a": i % 2} for i in range(20)])
    task = Task(**CHOICE, shots=3)
    items = load_items("t", task, tmp_path)
    shown = {prompt for prompt, _ in items[0].examples}
    assert len(items) == 17
    assert not shown & {i.prompt for i in items}
    assert all(answer == ("y" if int(prompt[1:]) % 2 else "x") for prompt, answer in items[0].examples)
    assert load_items("t", task.model_copy(update={"shots_seed": 1}), tmp_path)[0].examples != items[0].examples


def test_the_split_depends_on_the_row_alone_and_examples_come_from_the_other_side(tmp_path):
    rows = [{"en": f"s{i}", "zh": f"句{i}"} for i in range(400)]
    task = Task(file="rows.jsonl", kind="translate", prompt="{{ en }}", answer="zh", test_share=0.25, split_by=("en",),
                shots=2)
    items = load_items("t", task, rows_in(tmp_path, rows))
    assert 70 < len(items) < 130
    assert not any(is_test(task, {"en": prompt}) for prompt, _ in items[0].examples)
    random.Random(0).shuffle(rows)
    assert {i.prompt for i in load_items("t", task, rows_in(tmp_path, rows))} == {i.prompt for i in items}


def test_rows_with_one_prompt_become_one_item_with_several_answers(tmp_path):
    rows_in(tmp_path, [{"en": "Hi.", "zh": "嗨。"}, {"en": "Hi.", "zh": "你好。"}, {"en": "No.", "zh": "不。"}])
    task = Task(file="rows.jsonl", kind="translate", prompt="{{ en }}", answer="zh", gather=True)
    assert [i.expected for i in load_items("t", task, tmp_path)] == [["嗨。", "你好。"], ["不。"]]


@pytest.mark.parametrize(("table", "says"), [
    ({"options": ""}, "needs 'options'"), ({"answer": ""}, "needs 'answer'"), ({"metric": "bleu"}, "no metric 'bleu'"),
    ({"kind": "span"}, "needs 'context'"), ({"prompt": ""}, "'prompt' is empty"), ({"retrieve": 1}, "needs 'context'"),
    ({"kind": "classify"}, "same options for all rows"), ({"test_share": 0.5}, "belong together"),
])
def test_what_does_not_go_together_is_said(table, says):
    with pytest.raises(ValidationError, match=says):
        Task(**{**CHOICE, **table})


@pytest.mark.parametrize(("change", "says"), [
    ({"prompt": "{{ nothing }}"}, r"rows.jsonl:1: .*'nothing' is undefined.*the row has q, o, a"),
    ({"prompt": "{{ q.__class__.__mro__ }}"}, "can't be filled"),
    ({"options": "p"}, "rows.jsonl:1: no column 'p'"), ({"options": "q"}, "a list of two options"),
    ({"file": "none.jsonl"}, "no file at"), ({"where": {"q": "z"}}, "has no row where"),
    ({"shots": 1}, "1 examples are asked for, of 1 rows"), ({"options": "e"}, "rows.jsonl:1: column 'e' holds"),
    ({"options": "two"}, "rows.jsonl:1: column 'two' holds"),
    ({"kind": "qa", "options": "", "answer": "n"}, "rows.jsonl:1: column 'n' is empty"),
])
def test_bad_rows_and_templates_are_named(tmp_path, change, says):
    rows_in(tmp_path, [{"q": "a?", "o": ["x", "y"], "a": 1, "e": ["x", ""], "two": ["x", "x"], "n": None}])
    with pytest.raises(DataError, match=says):
        load_items("t", Task(**{**CHOICE, **change}), tmp_path)


def test_a_broken_file_is_named_with_its_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "a?", "o": ["x", "y"], "a": 1}\n{"q": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl:2: not a JSON object"):
        load_items("t", Task(**CHOICE), tmp_path)


def test_unknown_names_and_keys(tmp_path):
    with pytest.raises(ConfigError, match=r"no task 'nosuch': .*cmrc2018.qa"):
        find_tasks(["nosuch"], None)
    (tmp_path / "t.toml").write_text('[tasks.a]\nfile = "r"\nkind = "qa"\nprompts = "x"\nanswer = "a"\n',
                                     encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'prompt'"):
        find_tasks([str(tmp_path / "t.toml")], None)


def test_plain_text_is_cut_into_documents(tmp_path):
    (tmp_path / "t.txt").write_text(" = One = \nfirst\n = Two = \nsecond\n", encoding="utf-8")
    task = Task(file="t.txt", kind="perplexity", prompt="{{ text }}", cut=built_in()["wikitext2.test"].cut)
    assert [i.prompt for i in load_items("t", task, tmp_path)] == [" = One = \nfirst\n", " = Two = \nsecond\n"]


OTHERS = ("我不守规矩，花。" * 20, "I do NOT obey, I say cold things! " * 20)


def test_each_instruction_can_be_kept_and_is_not_kept_by_anything():
    task = built_in()["instruct.rules"]
    items = load_items("instruct.rules", task, BUILT_IN)
    assert len(items) >= 30
    for item in items:
        assert all(keeps(rule, item.row["kept_by"], item.prompt) for rule in item.expected), item.prompt
        wrong = [[keeps(rule, other, item.prompt) for rule in item.expected] for other in OTHERS]
        assert not all(map(all, wrong)), item.prompt
        assert not any(keeps(rule, " ", item.prompt) for rule in item.expected)


def test_a_rule_that_is_none_is_said():
    with pytest.raises(DataError, match="no rule 'sing'"):
        keeps({"kind": "sing"}, "la")
    with pytest.raises(DataError, match="can't be checked"):
        keeps({"kind": "words", "mots": 3}, "la")
