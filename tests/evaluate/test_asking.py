"""Prompts that fit, options, spans and texts against slow twins; numbers in answers."""

import numpy as np
import pytest

from ayllu.engine.llm import LLM
from ayllu.errors import ContextTooLong
from ayllu.evaluate.asking import answer, number_of, prepare, score_text, windows
from ayllu.evaluate.span import _places, best_span
from ayllu.evaluate.subject import Subject
from ayllu.evaluate.task import Item, Task

CHOICE = Task(file="-", kind="choice", prompt="-", options="o", answer="a")


@pytest.fixture(scope="module")
def subject(tiny_checkpoint):
    return Subject.of(LLM.load(tiny_checkpoint), "tiny", batch=4)


def item(prompt="The fox", expected=0, options=("walked", " the river", "书"), examples=(), row=None):
    return Item("i", row or {}, prompt, expected, options, None, {}, tuple(examples))


@pytest.mark.parametrize("normalise", ["bytes", "tokens", "none"])
def test_the_chosen_option_is_the_likeliest_by_its_measure(subject, normalise):
    task = CHOICE.model_copy(update={"normalise": normalise})
    items = [item(prompt) for prompt in ("The fox", "从前有", "Once upon a time", "def")]
    records = answer(subject, task, prepare(subject, "t", task, items, "error"), seed=0)
    for one, record in zip(items, records, strict=True):
        pairs = [subject.encode_pair(one.prompt, " " + option) for option in one.options]
        totals = [subject.likelihoods([pair])[0].total for pair in pairs]
        size = {"bytes": [len(o.encode()) for o in one.options], "tokens": [len(p[1]) for p in pairs],
                "none": [1, 1, 1]}[normalise]
        each = [t / s for t, s in zip(totals, size, strict=True)]
        assert record["output"] == each.index(max(each))
        assert record["logprobs"] == pytest.approx(totals, abs=1e-4)
        assert 1 / 3 <= record["confidence"] <= 1


def test_what_does_not_fit_is_an_error_or_marked(subject):
    """The context is 128 tokens."""
    examples = [("The bird walked along the river every day", "yes")] * 12
    items = [item("short"), item("The fox", examples=examples)]
    with pytest.raises(ContextTooLong, match="1 of 2 prompts don't fit the context of 128 tokens"):
        prepare(subject, "t", CHOICE, items, "error")
    dropped = prepare(subject, "t", CHOICE, items, "drop-examples")
    cut = prepare(subject, "t", CHOICE, items, "truncate-left")
    assert dropped[0].fit == cut[0].fit == ""
    n = int(dropped[1].fit.split()[1])
    assert 0 < n < 12
    assert dropped[1].text.count("The bird") == 12 - n                    # one more would not have fitted
    more = prepare(subject, "t", CHOICE, [item("The fox", examples=examples[:12 - n + 1])], "truncate-left")
    assert more[0].fit.startswith("cut")
    longest = max(map(len, cut[1].continuations))
    assert len(cut[1].ids) + longest - 1 == 128
    assert cut[1].ids[0] == subject.tokenizer.bos_id
    records = answer(subject, CHOICE, cut, 0)
    assert records[1]["fit"] == cut[1].fit
    with pytest.raises(ContextTooLong, match="even without examples"):
        prepare(subject, "t", CHOICE, [item("The river " * 60)], "drop-examples")


def slow_best(subject, prompt, passage, join, max_tokens, is_mean):
    """Every span by itself, its end too, in a text of its own."""
    ended = [subject.encode_rest("\n")[-1], *subject.eos_ids]
    spans = [(p.start, end, p.ids[:n]) for p in _places(subject, prompt, passage, join, max_tokens)
             for n, end in p.ends.items()]

    def total(ids):
        both = subject.likelihoods([(prompt, [*ids, end]) for end in ended])
        return both[0].total + np.log(sum(np.exp(b.logprobs[-1] - both[0].logprobs[-1]) for b in both))

    return max((total(ids) / (len(ids) + 1 if is_mean else 1), start, end) for start, end, ids in spans)


@pytest.mark.parametrize(("passage", "join"), [("The fox and the bird walked along the river.", " "),
                                               ("从前有一只小狐狸,它喜欢在河边读书。", "")])
@pytest.mark.parametrize("is_mean", [False, True])
def test_the_best_span_is_the_best_of_all_spans(subject, passage, join, is_mean):
    prompt = subject.encode("Who walked?")
    span, is_exact = best_span(subject, prompt, passage, join, 100, 6, is_mean)
    total, start, end = slow_best(subject, prompt, passage, join, 6, is_mean)
    assert is_exact
    assert (span.start, span.end) == (start, end)
    assert span.logprob == pytest.approx(total, abs=1e-4)
    some, is_exact = best_span(subject, prompt, passage, join, 2, 6, is_mean)
    assert not is_exact
    assert some.logprob <= span.logprob + 1e-4


def test_spans_begin_and_end_between_words(subject):
    passage = "The fox read 12 books. 小狐狸"
    places = _places(subject, subject.encode("x"), passage, " ", 8)
    begun = {p.start for p in places}
    assert {0, 4, 13, 23, 24, 25} <= begun
    assert not {1, 2, 5, 14} & begun
    ends = {passage[p.start:end] for p in places for end in p.ends.values()}
    assert not {".", ". "} & ends
    assert {"The fox", "12 books", "小狐狸"} <= ends
    assert not any(e.endswith(("fo", "boo")) for e in ends)


@pytest.mark.parametrize(("n", "context"), [(1, 8), (2, 8), (9, 8), (10, 8), (41, 8), (30, 7)])
def test_windows_predict_each_id_once_with_half_a_context_before(n, context):
    ids = list(range(n))
    found = windows(ids, context)
    assert [i for _, predicted in found for i in predicted] == ids[1:]
    for number, (given, predicted) in enumerate(found):
        assert given + predicted == list(range(given[0], predicted[-1] + 1))
        assert len(given) + len(predicted) - 1 <= context
        assert number == 0 or len(given) > context // 2 - 1


def test_texts_give_the_sum_over_their_windows(subject):
    task = Task(file="-", kind="perplexity", prompt="-")
    text = "The fox and the bird walked along the river every day. " * 7
    record = answer(subject, task, prepare(subject, "t", task, [item(text, None, ())], "error"), 0)[0]
    ids = subject.encode(text)
    assert len(ids) > 128
    assert record["scores"]["tokens"] == len(ids) - 1
    assert record["scores"]["bytes"] == len(text)
    total = sum(subject.likelihoods([pair])[0].total for pair in windows(ids, 128))
    assert record["scores"]["logprob"] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(("text", "number"), [
    ("He runs 540 meters.\n#### 540", 540), ("so 3*3=<<3*3=9>>9 #### 1,250.50", 1250.5), ("It is 12, or 13.", 13),
    ("about -4 degrees", -4), ("none", None), ("#### none", None), ("the sum is 1,000", 1000)])
def test_the_number_of_an_answer(text, number):
    assert number_of(text) == number


def test_sums_and_rules_are_scored():
    task = Task(file="-", kind="arithmetic", prompt="-", answer="a")
    right = item(expected=["18 - 9 = 9\n#### 9"])
    assert score_text(task, right, "So it is 9.") == {"accuracy": 1}
    assert score_text(task, right, "no idea") == {"accuracy": 0}
    rules = Task(file="-", kind="instruct", prompt="-", answer="rules")
    asked = item(expected=[{"kind": "words", "most": 2}, {"kind": "upper"}])
    assert score_text(rules, asked, " hello \n") == {"prompt_accuracy": 0, "kept": 1, "rules": 2}


def test_a_conversation_is_asked_by_the_models_template(subject, chat_checkpoint):
    chatty = Subject.of(LLM.load(chat_checkpoint), "chat")
    task = Task(file="-", kind="qa", prompt="-", answer="a", chat=True, stop=("!",), max_tokens=4)
    asked = item("Who?", ["x"], (), examples=[("The fox?", "walked")])
    one = prepare(chatty, "t", task, [asked], "error")[0]
    said = chatty.tokenizer.decode(one.ids, skip_special=True)
    assert said == "[user]The fox?\n[assistant]walked\n[user]Who?\n[assistant]"
    assert one.stop == ("!",)
    plain = prepare(subject, "t", task, [asked], "error")[0]              # no template: a transcript
    assert subject.tokenizer.decode(plain.ids, skip_special=True).endswith("User: Who?\nAssistant:")
    assert plain.stop == ("!", "\nUser:")
    chosen = answer(chatty, CHOICE.model_copy(update={"chat": True}),
                    prepare(chatty, "t", CHOICE.model_copy(update={"chat": True}), [item("Who?")], "error"), 0)[0]
    totals = [chatty.likelihoods([(chatty.encode_chat([{"role": "user", "content": "Who?"}])[0],
                                   chatty.encode_rest(" " + option))])[0].total for option in item().options]
    assert chosen["logprobs"] == pytest.approx(totals, abs=1e-4)
