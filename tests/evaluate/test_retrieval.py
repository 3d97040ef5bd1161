"""BM25 against its formula, and the passage of a question among others."""

import json
import math
from collections import Counter

import pytest

from ayllu.evaluate.retrieval import Passages, rank_of, words
from ayllu.evaluate.task import Task, load_items

TEXTS = ["The fox lived by the river and read books.", "The king had three sons and a castle by the river.",
         "中国的首都是北京，北京有很多大学。", "上海是中国最大的城市。", "长江是中国最长的河流，流经上海。",
         "The moon circles the earth."]


def slow_bm25(question, k1=1.2, b=0.75):
    """As SQLite's documentation writes it: a word in more than half of the passages counts 1e-6."""
    passages = [Counter(words(t)) for t in TEXTS]
    mean = sum(p.total() for p in passages) / len(passages)
    scores = [0.0] * len(passages)
    for word in set(words(question)):
        n = sum(word in p for p in passages)
        if not n:
            continue
        idf = max(math.log((len(passages) - n + 0.5) / (n + 0.5)), 1e-6)
        for i, p in enumerate(passages):
            scores[i] += idf * p[word] * (k1 + 1) / (p[word] + k1 * (1 - b + b * p.total() / mean))
    return [i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if scores[i] > 0]


@pytest.mark.parametrize("question", ["Who lived by the river?", "king and castle", "中国的首都在哪里？",
                                      "上海流经什么河流？", "\"river\" OR NEAR(* -moon"])
def test_order_is_that_of_the_formula(question):
    assert Passages(TEXTS).search(question, 10) == slow_bm25(question)


def test_words_of_both_languages():
    assert words("北京大学's Fox, 2 foxes!")[-3:] == ["fox", "2", "foxes"]
    assert "北京" in words("北京大学")
    assert Passages(TEXTS).search("xyz", 3) == []
    assert rank_of([4, 2], 2) == 2
    assert rank_of([4, 2], 3) is None


def test_a_task_that_looks_for_its_passages_among_all(tmp_path):
    rows = [{"text": TEXTS[0], "question": "Who lived by the river and read books?", "a": ["fox"]},
            {"text": TEXTS[2], "question": "中国的首都是哪里？", "a": ["北京"]},
            {"text": TEXTS[5], "question": "Which castle has three sons?", "a": ["none"]},         # finds another
            {"text": TEXTS[1], "question": "Who had three sons?", "a": ["king"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    task = Task(file="rows.jsonl", kind="qa", prompt="{{ text }} {{ question }}", answer="a", context="text",
                retrieve=1)
    items = load_items("t", task, tmp_path)
    assert [i.prompt.removesuffix(f" {r['question']}") for i, r in zip(items, rows, strict=True)] == [
        TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[1]]
    assert [i.ranks["recall@1"] for i in items] == [1, 1, 0, 1]
    assert task.metrics == ("f1", "em", "recall@1", "recall@5", "recall@10")
    assert load_items("t", task, tmp_path, limit=1)[0].ranks == next(
        i.ranks for i in items if i.id == load_items("t", task, tmp_path, limit=1)[0].id)     # all are searched
