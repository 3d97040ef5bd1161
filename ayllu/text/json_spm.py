"""A SentencePiece-style tokenizer.json (Llama 2, TinyLlama, Yi) as a SentencePiece model, for GGUF and llama2.c.

The file lists merges instead of scores. A piece gets the rank of the first merge that makes it as its score; then the
ids of both are compared, so nothing wrong is written.
"""

import re

from ayllu.errors import CheckpointError
from ayllu.log import warn
from ayllu.text.codec import METASPACE, Codec
from ayllu.text.hf import HfCodec
from ayllu.text.spm import SentencePieceCodec, build
from ayllu.text.spm_proto import Piece, PieceType

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def as_sentencepiece(codec: Codec, target: str) -> SentencePieceCodec:
    """The codec itself, or a SentencePiece model with the same ids; `target` names the format in messages."""
    if isinstance(codec, SentencePieceCodec):
        return codec
    if not isinstance(codec, HfCodec) or codec.is_byte_level or codec.data["model"].get("type") != "BPE":
        raise CheckpointError(f"{target} holds SentencePiece BPE here, and this tokenizer is something else")
    eos = next(iter(codec.named.eos_ids), None)
    made = build(_pieces(codec), bos_id=codec.named.bos_id, eos_id=eos, pad_id=codec.named.pad_id,
                 dummy_prefix=_prepends(codec))
    _compare(codec, made, target)
    return made


def _prepends(codec: HfCodec) -> bool:
    """Whether a text gets a space put before it, which shows in its first piece."""
    ids = codec.encode("a", continues=False)
    return bool(ids) and codec.piece(ids[0]).startswith(METASPACE)


def _pieces(codec: HfCodec) -> list[Piece]:
    model = codec.data["model"]
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges") or []]
    rank: dict[str, int] = {}
    for n, (left, right) in enumerate(merges):
        rank.setdefault(left + right, n)
    special = {c.id: c.special for c in codec.controls}
    unk = model.get("unk_token")
    kinds = {True: PieceType.CONTROL, False: PieceType.USER_DEFINED}
    pieces = []
    for id in range(codec.size):
        text = codec.piece(id)
        if not text:
            piece = Piece(f"<unused_{id}>", 0.0, PieceType.UNUSED)
        elif text == unk:
            piece = Piece(text, 0.0, PieceType.UNKNOWN)
        elif id in special or id in codec.added_ids:
            piece = Piece(text, 0.0, kinds[special.get(id, False)])
        elif model.get("byte_fallback") and _BYTE.fullmatch(text):
            piece = Piece(text, 0.0, PieceType.BYTE)
        else:
            piece = Piece(text, -float(rank.get(text, len(merges))))
        pieces.append(piece)
    if not any(p.type == PieceType.UNKNOWN for p in pieces):
        raise CheckpointError("this tokenizer.json names no unknown token, which SentencePiece must have")
    return pieces


def _compare(codec: HfCodec, made: SentencePieceCodec, target: str) -> None:
    """On every piece, on pieces in a row, on runs of spaces; text that begins with a space may differ by a warning."""
    words = [p.text.replace(METASPACE, " ") for p in made.pieces() if p.type == PieceType.NORMAL]
    rows = ["".join(words[i:i + 20]) for i in range(0, len(words), 20)]
    mixed = ["".join(words[i::len(words) // 30 + 1]) for i in range(0, len(words), 40)]
    texts = [*rows, *mixed, *("x" + " " * n + "y" for n in range(1, 70)), "日本𐍈\n\t é"]
    for text in texts:
        text = text.lstrip(" ")
        if codec.encode(text, continues=False) != made.encode(text, continues=False):
            raise CheckpointError(f"this tokenizer.json can't be written as {target}: SentencePiece would spell "
                                  f"{text[:60]!r} differently. Where a tokenizer.model lies beside it, load that file")
    if codec.encode(" a", continues=False) != made.encode(" a", continues=False):
        warn(f"{target} puts a space before every text, this tokenizer.json not where one stands there already: "
             "texts that begin with a space will get other ids")
