"""Texts as vectors: by the token table of a model (the default), by its last layer, or by sentence-transformers.

The mean of the bundled model's last layer finds little: of CMRC 2018's dev questions the right one of 744 passages is
first for 11 %. Its first layer, the table of token vectors, finds 57 % once the directions that all texts share are
weakened (`Corrected` in vectors.py). It needs no forward pass, and so is fast on any machine.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ayllu.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from ayllu.apps.speaker import Speaker

TOKENS = "tokens:ayllu-mini"                             # the default
LONGEST = 2048                                           # tokens of a chunk that count


class Embedder(Protocol):
    """What makes vectors of texts; collections remember its name, as vectors of two kinds can't be compared."""

    name: str

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32."""
        ...


class TokenVectors:
    """The mean of a model's token vectors over a text's tokens."""

    def __init__(self, model: str = "ayllu-mini") -> None:
        from ayllu.checkpoint.load import open_checkpoint
        self.name = f"tokens:{model}"
        checkpoint = open_checkpoint(model)
        tokenizer = checkpoint.open_tokenizer()
        if tokenizer is None:
            raise ConfigError(f"{model} has no tokenizer: put its tokenizer.model or tokenizer.json beside it")
        self._tokenizer = tokenizer
        self._table = checkpoint.tensor("tok_embeddings.weight").float().numpy()         # (V, D)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32; a text of no token is 0."""
        out = np.zeros((len(texts), self._table.shape[1]), np.float32)
        for i, text in enumerate(texts):
            if ids := self._tokenizer.encode(text, bos=False)[:LONGEST]:
                out[i] = self._table[ids].mean(axis=0)
        return out


class SpeakerVectors:
    """What a speaker's own `embed` gives: the mean of its last layer."""

    def __init__(self, speaker: "Speaker") -> None:
        self.name, self._speaker = f"speaker:{speaker.name}", speaker

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32."""
        return self._speaker.embed([text or " " for text in texts])


class SentenceVectors:
    """A model of sentence-transformers by its name or folder, where that package is installed."""

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra(f"the vectors of {model} need sentence-transformers: pip install sentence-transformers; "
                               f"or use {TOKENS}") from error
        self.name = f"sentences:{model}"
        self._model: Any = SentenceTransformer(model)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32."""
        return np.asarray(self._model.encode(list(texts), show_progress_bar=False), np.float32)


@lru_cache(maxsize=4)
def embedder_of(name: str) -> Embedder:
    """By the name that a collection remembers: tokens:MODEL, speaker:MODEL or sentences:MODEL."""
    kind, _, model = name.partition(":")
    match kind:
        case "tokens" if model:
            return TokenVectors(model)
        case "speaker" if model:
            from ayllu.apps.speaker import LocalSpeaker
            return SpeakerVectors(LocalSpeaker.load(model))
        case "sentences" if model:
            return SentenceVectors(model)
        case _:
            raise ConfigError(f"no vectors {name!r}: give tokens:MODEL, speaker:MODEL or sentences:MODEL")
