"""What all parts share: a conversation with its kind and language, sources read with the base's own held-out rows."""

import json
import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ayllu.data.corpus import uniform
from ayllu.data.packed import open_binary

Language = Literal["en", "zh"]
PHRASES: dict[str, Any] = tomllib.loads((Path(__file__).parent / "phrases.toml").read_text(encoding="utf-8"))
BASE_SEED, BASE_HELD_OUT = 0, 0.02                       # of recipes/mini.toml: what the base never saw is kept apart


@dataclass
class Chat:
    """One question and its answer. `expected` is what the held-out answer is judged by, by its kind."""

    kind: str
    language: Language                                   # of the answer
    asked: str
    answer: str
    source: str
    held_out: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As `ayllu sft` reads it, with columns of our own."""
        return {"messages": [{"role": "user", "content": self.asked}, {"role": "assistant", "content": self.answer}],
                "kind": self.kind, "language": self.language, "source": self.source, **self.facts}


def source(root: Path, path: str) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each row of a source of the base's recipe, and whether the base's training left it out."""
    with open_binary(root / path) as stream:
        for number, line in enumerate(stream):
            yield json.loads(line), uniform(f"{BASE_SEED}/{path}/{number}") < BASE_HELD_OUT


def apart(key: str, share: float = 0.02) -> bool:
    """Whether what belongs to this key is held out: by content, the same in every run."""
    return uniform(f"mini-chat/{key}") < share


def one(rng: random.Random, choices: Sequence[str], **filled: Any) -> str:
    """One of the phrasings, with its places filled."""
    return rng.choice(choices).format(**filled)


def sentences(text: str, language: Language) -> list[str]:
    """Split after the marks that end a sentence, quotation marks that follow kept with it."""
    chinese, english = r"(?<=[。！？])(?![”’」』])|(?<=[。！？][”’」』])", r"(?<=[.!?])\s+|(?<=[.!?][”\"’])\s+"
    pattern = chinese if language == "zh" else english
    return [s.strip() for s in re.split(pattern, text) if s and s.strip()]


def size(text: str, language: Language) -> int:
    """Words in English, characters in Chinese."""
    return len(text) if language == "zh" else len(text.split())
