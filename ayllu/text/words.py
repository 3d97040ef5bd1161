"""How byte-level vocabularies cut a text into words before merging, by the names that GGUF files use.

Each is the published regular expression of its model family (tiktoken or tokenizer.json).
"""

from typing import Any

Pattern = str | tuple[str, ...]                          # several are applied in turn

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _cl100k(digits: str) -> str:
    """GPT-4's rule, with the number of digits in a word left open."""
    return (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits
            + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


PATTERNS: dict[str, Pattern] = {
    "llama-bpe": _cl100k(r"\p{N}{1,3}"),
    "qwen2": _cl100k(r"\p{N}"),
    "gpt-2": _GPT2,
    "smollm": (r"\p{N}", _GPT2),                         # each digit by itself, then GPT-2's rule
}
WHOLE_WORDS = frozenset({"llama-bpe"})                   # a word that is a token is not cut (`ignore_merges`)


def name_of(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The name of a tokenizer.json's rule, if it is one of these."""
    rules = tuple(_rules(pre_tokenizer))
    for name, pattern in PATTERNS.items():
        if rules == ((pattern,) if isinstance(pattern, str) else pattern):
            return name
    return None


def _rules(step: dict[str, Any] | None) -> list[str]:
    match (step or {}).get("type"):
        case "Sequence":
            return [rule for inner in (step or {})["pretokenizers"] for rule in _rules(inner)]
        case "Split":
            return [(step or {})["pattern"].get("Regex", "")]
        case "Digits" if (step or {}).get("individual_digits"):
            return [r"\p{N}"]
        case "ByteLevel":
            step = step or {}
            prefix = ["a prefix space"] if step.get("add_prefix_space") else []
            return prefix + ([_GPT2] if step.get("use_regex", True) else [])
        case None:
            return []
        case other:
            return [f"unknown: {other}"]
