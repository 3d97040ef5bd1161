"""tiktoken-style rank files (Llama 3's `tokenizer.model`): lines of base64 bytes and a rank.

The ranks become a byte-level BPE of the `tokenizers` package, so tiktoken itself is not needed. Pairs merge where
their bytes together have a rank, lowest first, and a word that has a rank as a whole is not cut: `ignore_merges`.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any

from ayllu.errors import CheckpointError
from ayllu.text.codec import Named
from ayllu.text.hf import CHAR_OF_BYTE, HfCodec, byte_level_json
from ayllu.text.words import PATTERNS, Pattern

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")

# Llama 3.1's names (the text models of 3.2 too). Llama 3 has the same ids, some of them still called reserved.
_LLAMA3_NAMED = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
                 "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>",
                 "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>")
LLAMA3_SPECIAL = (*_LLAMA3_NAMED, *(f"<|reserved_special_token_{n}|>" for n in range(3, 3 + 256 - len(_LLAMA3_NAMED))))


def looks_like(data: bytes) -> bool:
    """Whether the first line is a base64 word and a number."""
    return _LINE.match(data) is not None


def codec(data: bytes, special: Sequence[str] = LLAMA3_SPECIAL, pattern: Pattern = PATTERNS["llama-bpe"]) -> HfCodec:
    """A codec with Llama 3's pattern and its 256 special tokens behind the ranks."""
    ranks = read_ranks(data)
    table = tokenizer_json(ranks, special, pattern)
    ids = {text: len(ranks) + n for n, text in enumerate(special)}
    eos = tuple(ids[t] for t in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>") if t in ids)
    named = Named(bos_id=ids.get("<|begin_of_text|>"), eos_ids=eos, pad_id=ids.get("<|finetune_right_pad_id|>"),
                  add_bos="<|begin_of_text|>" in ids)
    return HfCodec(json.dumps(table, ensure_ascii=False), named)


def read_ranks(data: bytes) -> dict[bytes, int]:
    """Bytes of each token and its rank, which is its id."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            word, rank = line.split()
            ranks[base64.b64decode(word, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(f"line {number} of the rank file should be base64 and a number, found "
                                  f"{line[:60]!r}; fetch the file again") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CheckpointError("the rank file's ranks are not 0, 1, 2, ... without gaps; fetch the file again")
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise CheckpointError(f"the rank file has no entry for byte 0x{missing[0]:02x}: it can't spell every text")
    return ranks


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to make a token of two others, in the order of the token's rank."""
    cuts = ((token[:n], token[n:]) for token in sorted(ranks, key=ranks.__getitem__)
            for n in range(len(token) - 1, 0, -1))       # longest left part first: of equal ranks the leftmost merges
    return [(left, right) for left, right in cuts if left in ranks and right in ranks]


def tokenizer_json(ranks: dict[bytes, int], special: Sequence[str], pattern: Pattern) -> dict[str, Any]:
    """An equal tokenizer.json."""
    return byte_level_json(
        vocab={spell(token): rank for token, rank in ranks.items()},
        merges=[(spell(a), spell(b)) for a, b in merges_of(ranks)],
        added=[(len(ranks) + n, text, True) for n, text in enumerate(special)], pattern=pattern, ignore_merges=True)


def spell(token: bytes) -> str:
    """Bytes in GPT-2's printable spelling."""
    return "".join(CHAR_OF_BYTE[b] for b in token)
