"""SentencePiece models: the `tokenizer.model` of Llama 1 and 2, TinyLlama, Mistral 7B, and those that Ayllu trains."""

import codecs
import hashlib
import json
import struct
from functools import cached_property
from typing import Any

from sentencepiece import SentencePieceProcessor

from ayllu.errors import CheckpointError
from ayllu.text import spm_json, spm_proto
from ayllu.text.codec import Control, Leading, Named, looks_like_markup, metaspace_bytes, turn_ends
from ayllu.text.spm_proto import Piece, PieceType, SpmModel, Value

_TEXT = (PieceType.NORMAL, PieceType.BYTE)


def _one_mark_per_byte(error: UnicodeError) -> tuple[str, int]:
    """SentencePiece shows one U+FFFD for each byte that is no UTF-8; Python's "replace" shows one for each run."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("ayllu.one_mark_per_byte", _one_mark_per_byte)


class SentencePieceCodec:
    """A SentencePiece model, with tokens that Hugging Face's files add to it (`added`: those special or markers).

    `prefix_each_segment`: whether a text that follows a special token gets the dummy prefix too. Meta's code encodes
    each turn on its own, so True; Hugging Face's `legacy: false` means False.
    """

    kind = "sentencepiece"
    utf8_errors = "ayllu.one_mark_per_byte"

    def __init__(self, model: bytes, *, added: list[Control] | None = None, prefix_each_segment: bool = True):
        self.model = model
        self.added = sorted(added or [], key=lambda c: c.id)
        self.prefix_each_segment = prefix_each_segment
        self._spm = _processor(model)
        settings = spm_proto.read_settings(model)
        self.trainer, self.normalizer = settings.trainer, settings.normalizer
        self._n_pieces = self._spm.get_piece_size()
        self.size = max([self._n_pieces, *(c.id + 1 for c in self.added)])
        self._added_text = {c.id: c.text for c in self.added}
        self._added_id = {c.text: c.id for c in self.added}
        self._byte_pieces = bool(self.trainer.get(spm_proto.BYTE_FALLBACK, False))
        self._types = self._read_types(settings.user_defined)
        self.controls = self._find_controls()
        eos = (i for i in (self._spm.eos_id(), *turn_ends(self.controls)) if i >= 0)
        self.named = Named(bos_id=_id(self._spm.bos_id()), eos_ids=tuple(eos), pad_id=self._find_pad(),
                           unk_id=_id(self._spm.unk_id()), add_bos=self._spm.bos_id() >= 0)
        no_space = bool(self.normalizer.get(spm_proto.REMOVE_EXTRA_WHITESPACES, True))
        self.leading = Leading(strip=self.has_dummy_prefix or no_space, strip_all=no_space)

    @property
    def has_dummy_prefix(self) -> bool:
        """Whether SentencePiece puts a space before a text."""
        return bool(self.normalizer.get(spm_proto.ADD_DUMMY_PREFIX, True))

    def encode(self, text: str, *, continues: bool) -> list[int]:
        """Ids of ordinary text; control pieces never match in SentencePiece."""
        if continues and self.has_dummy_prefix and not self.prefix_each_segment:
            return self._without_prefix.encode(text)
        return self._spm.encode(text)

    def encode_rest(self, text: str) -> list[int]:
        """Ids of a text that goes on in the middle of a word: no dummy prefix."""
        return (self._without_prefix if self.has_dummy_prefix else self._spm).encode(text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many whole texts."""
        return self._spm.encode(texts)

    def piece(self, id: int) -> str:
        """The vocabulary's own spelling of an id."""
        if id in self._added_text:
            return self._added_text[id]
        return self._spm.id_to_piece(id) if 0 <= id < self._n_pieces else ""

    def piece_id(self, piece: str) -> int | None:
        """The id with this spelling."""
        if piece in self._added_id:
            return self._added_id[piece]
        found = self._spm.piece_to_id(piece)
        return found if 0 <= found < self._n_pieces and self._spm.id_to_piece(found) == piece else None

    def piece_bytes(self, id: int) -> bytes:
        """Bytes of a piece; the unknown piece shows as SentencePiece's " ⁇ "."""
        match self._types[id] if id < self._n_pieces else PieceType.UNUSED:
            case PieceType.UNKNOWN:
                surface = self.trainer.get(spm_proto.UNK_SURFACE, " \u2047 ".encode())
                return surface if isinstance(surface, bytes) else str(surface).encode()
            case PieceType.CONTROL:
                return b""
            case PieceType.BYTE:
                return metaspace_bytes(self.piece(id), byte_pieces=True)
            case _:
                return metaspace_bytes(self.piece(id), byte_pieces=False)

    def ends(self, text: str) -> list[int] | None:
        """SentencePiece's proto interface would tell, for models that normalize; Llama's do not."""
        return None

    def definition(self) -> bytes:
        """Pieces with score and type, and what is done with spaces: the same whichever file they came from."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece.text.encode() + b"\0" + struct.pack("<fB", piece.score, piece.type))
        rules = [self.trainer.get(spm_proto.MODEL_TYPE, 1), self.has_dummy_prefix, self.leading.strip_all,
                 self.prefix_each_segment, self.normalizer.get(spm_proto.CHARSMAP, b""), self.added]
        return digest.digest() + repr(rules).encode()

    def files(self) -> dict[str, bytes]:
        """`tokenizer.model`, and an equal tokenizer.json where there can be one."""
        files = {"tokenizer.model": self.model}
        if self.why_no_json is None:
            files["tokenizer.json"] = json.dumps(self.tokenizer_json(), indent=1, ensure_ascii=False).encode()
        return files

    def tokenizer_json(self) -> dict[str, Any]:
        """The content of a tokenizer.json that gives the same ids."""
        if self.why_no_json:
            raise CheckpointError(f"there is no tokenizer.json equal to this SentencePiece model: {self.why_no_json}; "
                                  "use its tokenizer.model")
        return spm_json.tokenizer_json(self.pieces(), self.named, dummy_prefix=self.has_dummy_prefix, added=self.added)

    @cached_property
    def why_no_json(self) -> str | None:
        """What a tokenizer.json could not express, or None."""
        if self.has_dummy_prefix and not self.prefix_each_segment:
            return "only the start of a text gets a space before it"
        return spm_json.why_not(self.pieces(), self.trainer, self.normalizer)

    def pieces(self) -> list[Piece]:
        """Every piece of the model itself, in the order of ids."""
        ids = range(self._n_pieces)
        return [Piece(self._spm.id_to_piece(i), self._spm.get_score(i), self._types[i]) for i in ids]

    @cached_property
    def _without_prefix(self) -> SentencePieceProcessor:
        return _processor(spm_proto.with_dummy_prefix(self.model, False))

    def _read_types(self, user_defined: list[int]) -> list[PieceType]:
        ids = list(range(self._n_pieces))
        types = [PieceType.NORMAL] * len(ids)
        tests = ((self._spm.is_byte, PieceType.BYTE), (self._spm.is_control, PieceType.CONTROL),
                 (self._spm.is_unused, PieceType.UNUSED), (self._spm.is_unknown, PieceType.UNKNOWN))
        for test, kind in tests:
            for i, yes in zip(ids, test(ids), strict=True):
                if yes:
                    types[i] = kind
        for i in user_defined:
            types[i] = PieceType.USER_DEFINED
        return types

    def _is_control(self, id: int, kind: PieceType) -> bool:
        """User-defined pieces are matched in any text: those that look like markers must not be."""
        return kind in (PieceType.CONTROL, PieceType.UNKNOWN) or (
            kind == PieceType.USER_DEFINED and looks_like_markup(self._spm.id_to_piece(id)))

    def _find_pad(self) -> int | None:
        """The model's own padding, or a control piece of that name, as in those that Ayllu trains."""
        named = (c.id for c in self.controls if c.text == "<pad>" and c.special)
        return next(named, None) if self._spm.pad_id() < 0 else self._spm.pad_id()

    def _find_controls(self) -> list[Control]:
        found = [Control(i, self._spm.id_to_piece(i), special=kind != PieceType.USER_DEFINED)
                 for i, kind in enumerate(self._types)
                 if kind not in _TEXT and i not in self._added_text and self._is_control(i, kind)]
        return [*found, *(c for c in self.added if c.special or looks_like_markup(c.text))]


def build(pieces: list[Piece], *, bos_id: int | None, eos_id: int | None, pad_id: int | None = None,
          dummy_prefix: bool = True, remove_extra_whitespaces: bool = False,
          prefix_each_segment: bool = True) -> SentencePieceCodec:
    """A codec from bare pieces, as GGUF files and llama2.c's tokenizer.bin hold them."""
    named = {"bos": bos_id, "eos": eos_id, "pad": pad_id}
    for name, id in named.items():
        if id is not None and not 0 <= id < len(pieces):
            raise CheckpointError(f"{name} id {id} is outside the vocabulary of {len(pieces)} pieces")
    control = {name: (id, pieces[id].text) if id is not None else None for name, id in named.items()}
    trainer: dict[int, Value]
    trainer, normalizer = spm_proto.llama_settings(
        pieces, dummy_prefix=dummy_prefix, remove_extra_whitespaces=remove_extra_whitespaces, control=control)
    return SentencePieceCodec(SpmModel(pieces, trainer, normalizer).to_bytes(), prefix_each_segment=prefix_each_segment)


def _processor(model: bytes) -> SentencePieceProcessor:
    processor = SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"not a SentencePiece model: {error}; fetch the tokenizer again") from error
    return processor


def _id(id: int) -> int | None:
    return id if id >= 0 else None
