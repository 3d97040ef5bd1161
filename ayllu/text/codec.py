"""What a tokenizer library must offer: the face of `Tokenizer` is the same over each of them.

A codec turns ordinary text into ids and ids into bytes. It never looks for special tokens in text: `Tokenizer` cuts
those out first, and only where the caller allows it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

METASPACE = "\u2581"                                     # SentencePiece writes a space as this character
TURN_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>")    # chat models end an answer with one of these
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Control:
    """A token that stands for no text of its own: `<s>`, `<|eot_id|>`, `<tool_call>`."""

    id: int
    text: str
    special: bool = True                                 # False: a marker that skip_special still shows
    lstrip: bool = False                                 # HF: takes the white space on its left (right) with it
    rstrip: bool = False


def turn_ends(controls: Iterable[Control]) -> list[int]:
    """Special tokens that end an answer, whether or not a file names them; ordinary text never holds them."""
    known = {c.text: c.id for c in controls if c.special}
    return [known[t] for t in TURN_ENDS if t in known]


@dataclass(frozen=True)
class Named:
    """The ids that have a name, and whether this tokenizer's own convention adds them to a text."""

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    unk_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False


@dataclass(frozen=True)
class Leading:
    """Which leading space of a decoded text is no part of it.

    `strip`: the first piece loses one (SentencePiece's dummy prefix). `strip_all`: so does each later one until there
    is text (remove_extra_whitespaces).
    """

    strip: bool = False
    strip_all: bool = False


class Codec(Protocol):
    """One tokenizer library."""

    kind: str
    size: int                                            # ids are 0 .. size - 1
    controls: list[Control]
    named: Named
    leading: Leading
    utf8_errors: str                                     # how bytes that are no UTF-8 show: a codecs error handler

    def encode(self, text: str, *, continues: bool) -> list[int]:
        """Ids of ordinary text; `continues` where a special token stands before it."""
        ...

    def encode_rest(self, text: str) -> list[int]:
        """Ids of ordinary text that goes on in the middle of a word: no space is put before it."""
        ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many whole texts."""
        ...

    def piece(self, id: int) -> str:
        """The vocabulary's own spelling of an id."""
        ...

    def piece_id(self, piece: str) -> int | None:
        """The id with this spelling."""
        ...

    def piece_bytes(self, id: int) -> bytes:
        """UTF-8 bytes (whole or partial characters) that an ordinary id stands for; nothing for controls."""
        ...

    def ends(self, text: str) -> list[int] | None:
        """Where the text of each id of `encode(text)` ends, in characters; None where bytes of pieces tell it."""
        ...

    def definition(self) -> bytes:
        """Bytes that determine every id, for the fingerprint."""
        ...

    def files(self) -> dict[str, bytes]:
        """Name and content of the files from which this codec can be loaded."""
        ...




def metaspace_bytes(piece: str, byte_pieces: bool) -> bytes:
    """Bytes of a SentencePiece-style piece: `▁` is a space and, with byte fallback, `<0x0A>` one byte."""
    found = _BYTE_PIECE.fullmatch(piece) if byte_pieces else None
    return bytes([int(found[1], 16)]) if found else piece.replace(METASPACE, " ").encode()


def looks_like_markup(text: str) -> bool:
    """Whether an added token is a marker such as `<tool_call>` or `[INST]` and not a word or a run of spaces."""
    return len(text) > 2 and (text[0], text[-1]) in {("<", ">"), ("[", "]"), ("｜", "｜")}
