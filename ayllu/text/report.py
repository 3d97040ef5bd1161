"""How well tokenizers spell languages: bytes per token, and what falls back to single bytes."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ayllu.text.codec import METASPACE
from ayllu.text.tokenizer import Tokenizer

# Our own sentences, one meaning in many languages, for a report without texts. Short: real texts say more.
SAMPLES: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("samples.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Spelling:
    """What one tokenizer makes of the texts of one language."""

    texts: int
    bytes: int
    tokens: int
    part_tokens: int                                     # tokens that are no whole character

    @property
    def bytes_per_token(self) -> float:
        """More is better: fewer tokens for the same text."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def part_share(self) -> float:
        """The share of tokens that spell a character in parts: the vocabulary lacks this script."""
        return self.part_tokens / self.tokens if self.tokens else 0.0


def spell(tokenizer: Tokenizer, texts: Sequence[str]) -> Spelling:
    """Count over texts, without BOS and EOS."""
    rows = tokenizer.encode_batch(texts)
    parts: dict[int, bool] = {}
    for row in rows:
        for id in row:
            if id not in parts:
                parts[id] = _is_part(tokenizer.bytes_of(id))
    return Spelling(texts=len(texts), bytes=sum(len(t.encode()) for t in texts), tokens=sum(map(len, rows)),
                    part_tokens=sum(parts[id] for row in rows for id in row))


def compare(tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Spelling]]:
    """For each language, for each tokenizer."""
    return {language: {name: spell(t, rows) for name, t in tokenizers.items()} for language, rows in texts.items()}


def first_difference(a: Tokenizer, b: Tokenizer, texts: Iterable[str]) -> str | None:
    """The first text that two tokenizers spell in different ids, or None."""
    return next((t for t in texts if a.encode(t) != b.encode(t)), None)


def hard_texts(texts: Iterable[str]) -> list[str]:
    """Texts that find differences between two implementations: theirs, and spaces, digits and odd characters."""
    odd = ["", " ", "\t\n\r\n", "\u00a0\u3000", "a  b   c", "1234567890", "ÀÉ\u0301\u200d", "\x00\x7f", METASPACE,
           "👩\u200d👩\u200d👧🏽🦙", f"a{METASPACE * 3}b", "<s></s><unk><0x41>", "𐍈𝄞\U0010fffd",
           *(" " * n + "x" for n in range(1, 40))]
    return [*odd, *(part for text in texts for part in (text, text.replace(" ", "  "), text.swapcase()))]


def _is_part(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False
