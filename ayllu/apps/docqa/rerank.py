"""Passages put in a new order by a model: how likely is the question after the passage (Sachan et al. 2022,
arXiv:2204.07496)? The new order and the old one are fused, the new one with the greater weight."""

from collections.abc import Sequence

from ayllu.apps.collection import Passage
from ayllu.apps.index.ranking import fused
from ayllu.apps.speaker import Speaker
from ayllu.errors import ContextTooLong

_ASK = "Write a question that this passage answers."


def reranked(question: str, passages: Sequence[Passage], speaker: Speaker) -> list[Passage]:
    """One call of the model for each passage; one that is too long for its context keeps its old place only."""
    by_number = dict(enumerate(passages))
    likely = {number: _likelihood(question, passage, speaker) for number, passage in by_number.items()}
    order = sorted((n for n, value in likely.items() if value is not None), key=lambda n: -float(likely[n] or 0))
    return [by_number[number] for number, _ in fused([(0.4, list(by_number)), (0.6, order)])]


def _likelihood(question: str, passage: Passage, speaker: Speaker) -> float | None:
    try:
        found = speaker.logprobs([{"role": "user", "content": f"{passage.text}\n\n{_ASK}"}], question)
    except ContextTooLong:
        return None
    return sum(found) / max(len(found), 1)
