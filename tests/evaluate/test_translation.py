"""Resampled BLEU and chrF against sacrebleu's public face on the resampled texts themselves."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from ayllu.errors import DataError
from ayllu.evaluate.translation import corpus, signature

WRITTEN = ["猫坐在垫子上。", "我喜欢读书。", "今天天气很好", "", "他去了北京 2 次。", "the cat sat on the mat"]
EXPECTED = [["那只猫坐在垫子上。", "猫在垫子上。"], ["我爱读书。"], ["今天天气不错。", "今天天气很好。"], ["是的。"],
            ["他去过北京两次。"], ["the cat is on the mat"]]


@pytest.mark.parametrize(("metric", "tokenize"), [("bleu", "zh"), ("bleu", "13a"), ("chrf", "13a")])
def test_any_resample_equals_sacrebleu_on_its_texts(metric, tokenize):
    statistic = corpus(metric, WRITTEN, EXPECTED, tokenize)
    scorer = BLEU(tokenize=tokenize) if metric == "bleu" else CHRF()
    for items in (np.arange(6), np.array([0, 0, 2, 4]), np.array([5, 1, 1, 3, 0])):
        written = [WRITTEN[i] for i in items]
        streams = [[EXPECTED[i][j] if j < len(EXPECTED[i]) else None for i in items] for j in range(2)]
        assert statistic(items) == pytest.approx(scorer.corpus_score(written, streams).score, abs=1e-9)
    assert statistic(np.arange(6)) > 5


def test_the_chinese_tokenizer_matters_and_is_named():
    zh, plain = (corpus("bleu", WRITTEN, EXPECTED, t)(np.arange(6)) for t in ("zh", "13a"))
    assert abs(zh - plain) > 1
    assert "tok:zh" in signature("bleu", "zh")
    with pytest.raises(DataError, match="unknown"):
        corpus("bleu", WRITTEN, EXPECTED, "jp")
