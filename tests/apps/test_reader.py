"""The reader: the fast sum is the slow one, places stand in the sentence, bundled weights find plain answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.collection import Collection
from ayllu.apps.docqa.ask import Asking, ask
from ayllu.apps.docqa.reader import SENTENCE, SIZE, Asked, Line, Reader, pieces, short_answer
from ayllu.errors import CheckpointError

WORDS = ["Rome", "was", "founded", "in", "753", "BC", "by", "Romulus", "，", "(", ")", "罗马", "由谁", "建立", "%"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join)


@given(texts, texts, st.integers(0, 3))
def test_the_best_span_is_that_of_the_slow_sum(question, sentence, seed):
    weights = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    line, found = Line(Asked(question), sentence), Reader(weights).answer(question, sentence)
    slow = {span: float(weights[line.facts(*span)].sum()) for span in line.spans()}
    if not slow:
        assert found is None
        return
    (i, j), best = max(slow.items(), key=lambda item: item[1])
    p = 1 / sum(np.exp(score - best) for score in slow.values())
    assert found.sure == pytest.approx(p, rel=1e-3)      # float32 sums in another order
    assert (found.start, found.end) == (line.places[i][0], line.places[j][1])


@given(st.text(max_size=60))
def test_pieces_cover_all_but_white_space(text):
    assert "".join(text[a:b] for a, b in pieces(text)) == "".join(text.split())


@pytest.mark.parametrize(("question", "sentence", "said"), [
    ("这座桥是哪一年建成的？", "这座桥于1998年建成，全长三公里。", "1998年"),
    ("谁设计了这座桥？", "这座桥由李明设计。", "李明")])
def test_the_bundled_one_finds_plain_answers(question, sentence, said):
    found = short_answer(question, sentence)
    assert sentence[found.start:found.end] == said


def test_reasons_and_what_is_no_question_stay_whole():
    assert short_answer("为什么桥关闭了？", "桥因为维修关闭。") is None
    assert short_answer("桥的长度", "全长三公里。") is None
    assert Reader.load().answer("谁？", "字 " * (SENTENCE + 1)) is None


def test_an_answer_has_its_short_form_with_a_place_in_the_source(tmp_path):
    with Collection(tmp_path / "c.sqlite") as collection:
        collection.add_texts({"bridge": "A page of bridges.\n这座桥于1998年建成，全长三公里。\n桥上有灯。"})
        reply = ask("这座桥是哪一年建成的？", collection, how=Asking(sure=0)).reply
        assert reply.short.quote == "1998年"
        assert collection.text(reply.short.document, reply.short.start, reply.short.end) == "1998年"
        assert reply.as_json()["short"]["number"] == reply.citations[0].number == 1
        assert reply.citations[0].start <= reply.short.start < reply.short.end <= reply.citations[0].end


@pytest.mark.parametrize("weights", [np.zeros(3), np.full(SIZE, np.nan)])
def test_other_weights_are_refused(tmp_path, weights):
    np.save(tmp_path / "w.npy", weights)
    with pytest.raises(CheckpointError, match="expected"):
        Reader.load(tmp_path / "w.npy")
    with pytest.raises(CheckpointError, match="recipes/reader"):
        Reader.load(tmp_path / "none.npy")
