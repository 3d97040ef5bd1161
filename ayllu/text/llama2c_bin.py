"""llama2.c's `tokenizer.bin`: the longest piece's length, then for each id a score, a length and the piece's bytes.

It can't say which pieces are special: Llama 2's places are assumed (0 unknown, 1 BOS, 2 EOS, 3 to 258 bytes). A
SentencePiece `▁` is stored as a space, and BOS and EOS with a line feed on both sides (llama2.c, tokenizer.py).
"""

import struct

from ayllu.errors import CheckpointError
from ayllu.text.codec import METASPACE, Codec
from ayllu.text.json_spm import as_sentencepiece
from ayllu.text.spm import SentencePieceCodec, build
from ayllu.text.spm_proto import Piece, PieceType

_LONGEST = 1 << 16                                       # bytes; a piece of a sane vocabulary is far shorter


def looks_like(data: bytes) -> bool:
    """Whether the first entry is the unknown piece, as in every file of this format."""
    return len(data) >= 12 and data[12:17] == b"<unk>" and struct.unpack_from("<i", data, 8)[0] == 5


def codec(data: bytes) -> SentencePieceCodec:
    """The SentencePiece model that a tokenizer.bin was made from, as far as the format holds it."""
    rows = _rows(data)
    if len(rows) < 3:
        raise CheckpointError(f"tokenizer.bin holds {len(rows)} pieces, expected at least <unk>, <s>, </s>")
    return build([_piece(id, text, score) for id, (text, score) in enumerate(rows)], bos_id=1, eos_id=2)


def write(codec: Codec) -> bytes:
    """The bytes of a tokenizer.bin; refused where the format can't say what the tokenizer does."""
    codec = as_sentencepiece(codec, "llama2.c's tokenizer.bin")
    named = codec.named
    if (named.unk_id, named.bos_id, named.eos_ids[:1]) != (0, 1, (2,)):
        raise CheckpointError("llama2.c's tokenizer.bin needs <unk>, <s>, </s> as ids 0, 1, 2; found "
                              f"{named.unk_id}, {named.bos_id}, {named.eos_ids}")
    if not codec.has_dummy_prefix or codec.leading.strip_all:
        raise CheckpointError("llama2.c puts one space before a text and keeps all others; this tokenizer does not, "
                              "so its ids would differ")
    special = [p.text for p in codec.pieces()[3:] if p.type not in (PieceType.NORMAL, PieceType.BYTE)]
    special += [token.text for token in codec.added]
    if special:
        raise CheckpointError(f"llama2.c's tokenizer.bin can't mark pieces as special, and this tokenizer has "
                              f"{len(special)} of them ({', '.join(special[:3])}{', ...' if special[3:] else ''}): as "
                              "plain pieces, text that a user types would turn into them. Convert to hf, meta or gguf, "
                              "which keep them")
    pieces = [_text(id, piece).encode() for id, piece in enumerate(codec.pieces())]
    rows = (struct.pack("<fi", p.score, len(b)) + b for p, b in zip(codec.pieces(), pieces, strict=True))
    return struct.pack("<i", max(map(len, pieces))) + b"".join(rows)


def _rows(data: bytes) -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    at = 4
    while at < len(data):
        score, size = struct.unpack_from("<fi", data.ljust(at + 8, b"\0"), at)
        if not 0 <= size <= _LONGEST or at + 8 + size > len(data):
            raise CheckpointError(f"tokenizer.bin is damaged: piece {len(rows)} claims {size} bytes, "
                                  f"{max(0, len(data) - at - 8)} are left; fetch the file again")
        try:
            rows.append((data[at + 8:at + 8 + size].decode(), score))
        except UnicodeDecodeError as error:
            raise CheckpointError(f"tokenizer.bin is damaged: piece {len(rows)} is no UTF-8") from error
        at += 8 + size
    return rows


def _piece(id: int, text: str, score: float) -> Piece:
    if id == 0:
        return Piece(text, score, PieceType.UNKNOWN)
    if id in (1, 2):
        return Piece(text.strip("\n"), score, PieceType.CONTROL)
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return Piece(text.replace(" ", METASPACE), score, PieceType.BYTE if is_byte else PieceType.NORMAL)


def _text(id: int, piece: Piece) -> str:
    return f"\n{piece.text}\n" if id in (1, 2) else piece.text.replace(METASPACE, " ")
