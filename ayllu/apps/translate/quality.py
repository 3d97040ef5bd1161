"""How sure a translation is: the model's own probability, and how near the way back comes to the source."""

from collections import Counter

ORDERS = 4                                               # runs of 1 to 4 characters
LOW_PROBABILITY = 0.5                                    # below it a person should look; benchmarks/translate_texts.py
LOW_BACK = 0.35


def closeness(a: str, b: str) -> float:
    """The F-score of shared runs of characters, 0 to 1 (as chrF, Popović 2015, with equal weight of both sides)."""
    a, b = "".join(a.lower().split()), "".join(b.lower().split())
    if not a or not b:
        return float(a == b)
    scores = []
    for n in range(1, ORDERS + 1):
        left, right = _runs(a, n), _runs(b, n)
        if left and right:
            scores.append(2 * sum((left & right).values()) / (sum(left.values()) + sum(right.values())))
    return sum(scores) / len(scores)


def _runs(text: str, n: int) -> Counter[str]:
    return Counter(text[i:i + n] for i in range(len(text) - n + 1))
