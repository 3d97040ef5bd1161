"""The few fields of SentencePiece's ModelProto that Ayllu reads and writes, in protobuf's wire format.

The `protobuf` package is not a dependency of `sentencepiece`, and 100 lines serve us better than another heavy
package: a ModelProto is a list of pieces (text, score, type) and two flat messages of settings. Field numbers follow
sentencepiece_model.proto of google/sentencepiece.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from ayllu.errors import CheckpointError

Value = int | float | bool | str | bytes

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5             # protobuf wire types

# ModelProto
PIECES, TRAINER, NORMALIZER = 1, 2, 3
# TrainerSpec
MODEL_TYPE, VOCAB_SIZE, SPLIT_DIGITS, BYTE_FALLBACK = 3, 4, 25, 35
UNK_ID, BOS_ID, EOS_ID, PAD_ID, UNK_SURFACE = 40, 41, 42, 43, 44
UNK_PIECE, BOS_PIECE, EOS_PIECE, PAD_PIECE = 45, 46, 47, 48
# NormalizerSpec
NORMALIZER_NAME, CHARSMAP, ADD_DUMMY_PREFIX, REMOVE_EXTRA_WHITESPACES, ESCAPE_WHITESPACES = 1, 2, 3, 4, 5

BPE = 2                                                  # TrainerSpec.ModelType: 1 unigram, 2 BPE, 3 word, 4 char


class PieceType(IntEnum):
    """What a piece is; GGUF's token types use the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `score` orders the merges of a BPE (higher merges first)."""

    text: str
    score: float = 0.0
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True)
class SpmModel:
    """A SentencePiece model: its pieces in the order of their ids, and its settings by field number."""

    pieces: list[Piece]
    trainer: dict[int, Value] = field(default_factory=dict)
    normalizer: dict[int, Value] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The serialized ModelProto, as in a `tokenizer.model` file."""
        pieces = (_pack(PIECES, _message({1: p.text, 2: float(p.score), 3: int(p.type)})) for p in self.pieces)
        return b"".join(pieces) + _pack(TRAINER, _message(self.trainer)) + _pack(NORMALIZER, _message(self.normalizer))


@dataclass
class Settings:
    """What a ModelProto says beside its pieces, by field number, and what only the proto tells about pieces."""

    trainer: dict[int, Value] = field(default_factory=dict)
    normalizer: dict[int, Value] = field(default_factory=dict)
    user_defined: list[int] = field(default_factory=list)    # ids; the Python interface calls these normal


def read_settings(data: bytes) -> Settings:
    """One quick pass: pieces are not parsed, except those whose last two bytes say that they are user-defined."""
    found = Settings()
    ending = bytes([3 << 3 | VARINT, PieceType.USER_DEFINED])    # a piece's type is its last field
    id = 0
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == PIECES:
            if value.endswith(ending) and dict(_fields(value)).get(3) == PieceType.USER_DEFINED:
                found.user_defined.append(id)
            id += 1
        elif number == TRAINER:
            found.trainer.update(_fields(value))
        elif number == NORMALIZER:
            found.normalizer.update(_fields(value))
    return found


def with_dummy_prefix(data: bytes, wanted: bool) -> bytes:
    """The same model with or without the space that SentencePiece puts before a text.

    Protobuf merges a message that occurs twice, the later scalar wins: appending one field is enough.
    """
    return data + _pack(NORMALIZER, _message({ADD_DUMMY_PREFIX: wanted}))


def _message(fields: dict[int, Value]) -> bytes:
    return b"".join(_pack(number, value) for number, value in sorted(fields.items()))


def _pack(number: int, value: Value) -> bytes:
    match value:
        case bool() | int():
            return _varint(number << 3 | VARINT) + _varint(int(value) & (1 << 64) - 1)   # negatives: two's complement
        case float():
            return _varint(number << 3 | FIXED32) + struct.pack("<f", value)
        case str():
            return _pack(number, value.encode())
        case _:
            return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The (number, value) pairs of one message; nested messages and strings stay bytes."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        match wire:
            case 0:
                value, at = _read_varint(data, at)
                yield number, value - (1 << 64) if value >> 63 else value
            case 1:
                yield number, data[at:at + 8]
                at += 8
            case 2:
                size, at = _read_varint(data, at)
                if at + size > len(data):
                    raise CheckpointError("damaged SentencePiece model: a field reaches past the end of the file; "
                                          "fetch the file again")
                yield number, data[at:at + size]
                at += size
            case 5:
                yield number, struct.unpack_from("<f", data.ljust(at + 4, b"\0"), at)[0]
                at += 4
            case _:
                raise CheckpointError(f"damaged SentencePiece model: unknown wire type {wire}; fetch the file again")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:               # nearly all are one byte: models hold 32,000 pieces
        return data[at], at + 1
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise CheckpointError("damaged SentencePiece model: it ends within a number; fetch the file again")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def llama_settings(
        pieces: Iterable[Piece], *, dummy_prefix: bool = True, remove_extra_whitespaces: bool = False,
        control: dict[str, tuple[int, str] | None] | None = None) -> tuple[dict[int, Value], dict[int, Value]]:
    """Trainer and normalizer settings of a Llama-style BPE; `control` gives (id, piece) of bos, eos and pad."""
    listed = list(pieces)
    unk = next((i for i, p in enumerate(listed) if p.type == PieceType.UNKNOWN), 0)
    trainer: dict[int, Value] = {
        MODEL_TYPE: BPE, VOCAB_SIZE: len(listed), SPLIT_DIGITS: True, UNK_SURFACE: " \u2047 ",
        BYTE_FALLBACK: any(p.type == PieceType.BYTE for p in listed), UNK_ID: unk, UNK_PIECE: listed[unk].text}
    fields = {"bos": (BOS_ID, BOS_PIECE), "eos": (EOS_ID, EOS_PIECE), "pad": (PAD_ID, PAD_PIECE)}
    for name, (id_field, piece_field) in fields.items():
        found = (control or {}).get(name)
        trainer[id_field] = found[0] if found else -1
        if found:
            trainer[piece_field] = found[1]
    normalizer: dict[int, Value] = {NORMALIZER_NAME: "identity", CHARSMAP: b"", ADD_DUMMY_PREFIX: dummy_prefix,
                                    REMOVE_EXTRA_WHITESPACES: remove_extra_whitespaces, ESCAPE_WHITESPACES: True}
    return trainer, normalizer
