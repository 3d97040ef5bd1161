"""BLEU and chrF through sacrebleu, resampled without counting any sentence twice.

Both are scores of a corpus: sums over its sentences, and one formula over the sums. sacrebleu counts each sentence
once; a resample adds the rows of its sentences up.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ayllu.errors import DataError, extra
from ayllu.evaluate.intervals import Statistic

TOKENIZERS = ("13a", "zh", "char", "intl", "none")


def corpus(metric: Literal["bleu", "chrf"], written: Sequence[str], references: Sequence[Sequence[str]],
           tokenize: str = "13a") -> Statistic:
    """The corpus score, 0 to 100, of any of the sentences; each may have several references."""
    if tokenize not in TOKENIZERS:
        raise DataError(f"BLEU's tokenizer {tokenize!r} is unknown: use {', '.join(TOKENIZERS)}")
    scorer = _scorer(metric, tokenize)
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    # sacrebleu's own bootstrap uses these two; tests hold them to its public corpus_score
    counts = np.array(scorer._extract_corpus_statistics(list(written), streams), dtype=np.int64)
    return lambda items: float(scorer._compute_score_from_stats(counts[items].sum(0).tolist()).score)


def signature(metric: Literal["bleu", "chrf"], tokenize: str = "13a") -> str:
    """How the score was counted, as sacrebleu writes it beside published ones."""
    scorer = _scorer(metric, tokenize)
    scorer.corpus_score(["a"], [["a"]])                  # a signature needs to have seen a reference
    return str(scorer.get_signature())


def _scorer(metric: str, tokenize: str) -> Any:
    with extra("evaluate", "scoring translations"):
        from sacrebleu.metrics import BLEU, CHRF
    return BLEU(tokenize=tokenize) if metric == "bleu" else CHRF()
