"""An answer in the documents' own words: the sentence that speaks most of the question, and how sure that is.

The default with a small model, which would write worse than it reads.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ayllu.apps.collection import Collection, Passage
from ayllu.apps.docqa.cite import Span, spans_of
from ayllu.apps.docqa.overlap import WEIGHTS, Question, features, is_question, telling, understood
from ayllu.apps.index.cut import columns
from ayllu.apps.index.ranking import weights

FOUND = np.array([-4.9, 2.2, 3.4, 3.9, -0.2])            # bias; what a sentence, those beside, all cover; form
UNDER = 4.0                                              # of a heading that speaks of the question, for what is below
SAYS = 3.0                                               # of "X is ..." where the question is "what is X?"
UNSAID = 0.4                                             # of the confidence, where no sentence says what X is
WIDE = 4                                                 # times as many passages are read for it: each may speak of X
SURE = 0.5                                               # the confidence from which an answer is given
_RULE = re.compile(r"\|[\s:|-]+")                        # below the names of a table's columns
_FRAME = re.compile(rf"{_RULE.pattern}|(?:```|~~~).*|(?:\[[^\]]*\]\([^)]*\)\s*)+")     # of Markdown, and links alone
ANSWER = 400                                             # columns of the answer to a question that a document asks


@dataclass(frozen=True)
class Found:
    """A sentence, and the probability that it, or what stands beside it, answers the question."""

    span: Span
    score: float
    confidence: float
    values: np.ndarray = field(compare=False)            # (F,), its features


def read(question: str, collection: Collection) -> Question:
    """The question with the weights of its words in this collection."""
    return understood(question, weights(collection.store, telling(question)))


def extract(question: Question, passages: Sequence[Passage]) -> list[Found]:
    """Every sentence of the passages, the best first; of equals, the one whose passage was found first."""
    found = []
    for passage in passages:
        spans, heading, above = spans_of(passage), "", ""                    # `above`: of the first sentence below it
        for i, span in enumerate(spans):
            if re.match("#{1,6} ", span.text) and len(spans) > 1:            # it says what is below, no answer
                heading = above = span.text
                continue
            if _FRAME.fullmatch(span.text) or any(_RULE.fullmatch(s.text) for s in spans[i + 1:i + 2]):
                continue
            around = " ".join(s.text for s in (*spans[max(0, i - 1):i], *spans[i + 1:i + 2]))
            values = features(question, span.text, f"{around} {heading} {passage.title}", passage.text)
            says, above = question.term.defined(span.text, above), ""
            score = float(values @ WEIGHTS) + UNDER * question.covered(heading) + SAYS * says
            sure = confidence(values) * (UNSAID if question.term.needs_definition and not says else 1.0)
            found.append(Found(_answering(spans, i), score, sure, values))
    return sorted(found, key=lambda f: -f.score)


def confidence(values: np.ndarray) -> float:
    """A probability from a sentence's features (F,); calibrated as overlap.py says."""
    covered, beside, passage, form, _ = values
    return 1 / (1 + math.exp(-float(FOUND @ [1.0, covered, covered + beside, covered + beside + passage, form])))


def _answering(spans: Sequence[Span], i: int) -> Span:
    """The sentence; where it is itself a question, what the document says to it, as long as that isn't too much."""
    last = i
    while is_question(spans[i].text) and last + 1 < len(spans) and not is_question(spans[last + 1].text):
        if last > i and columns(Span(spans[i].passage, spans[i + 1].start, spans[last + 1].end).text) > ANSWER:
            break
        last += 1
    return spans[i] if last == i else Span(spans[i].passage, spans[i + 1].start, spans[last].end)
