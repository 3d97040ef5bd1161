"""Which language a document is in, by the library py3langid (97 languages, naive Bayes over byte n-grams)."""

from functools import cache
from typing import Any

from ayllu.errors import extra

CHARACTERS = 2000                                        # of a document's start: the verdict seldom changes after that
LEAST = 0.2                                              # below this confidence the answer is "und"


def identify(text: str) -> str:
    """An ISO 639-1 code, or "und" where there are no letters or the library isn't sure. Classical Chinese is "zh"."""
    start = text[:CHARACTERS]
    if not any(map(str.isalpha, start)):
        return "und"
    language, confidence = _identifier().classify(start)
    return language if confidence >= LEAST else "und"


def likelihoods(text: str) -> dict[str, float]:
    """How likely each language is, by its ISO 639-1 code."""
    return {code: float(p) for code, p in _identifier().rank(text[:CHARACTERS])}


@cache
def _identifier() -> Any:
    with extra("data", "identifying languages", "; or set data.prepare.identify=false"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
