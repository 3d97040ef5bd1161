"""A tokenizer as the metadata of a GGUF file (ggml-org/ggml, gguf.md): "llama" is SentencePiece, "gpt2" bytes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ayllu.errors import CheckpointError
from ayllu.log import warn
from ayllu.text import spm, words
from ayllu.text.codec import Codec, Named, turn_ends
from ayllu.text.hf import HfCodec, byte_level_json
from ayllu.text.json_spm import as_sentencepiece
from ayllu.text.spm_proto import Piece, PieceType

_P = "tokenizer.ggml."


def read_gguf(metadata: dict[str, Any]) -> tuple[Codec, Named]:
    """The codec and named ids that the `tokenizer.*` entries describe."""
    model = metadata.get(_P + "model")
    tokens = metadata.get(_P + "tokens")
    if not tokens:
        raise CheckpointError("this GGUF file holds no tokenizer (tokenizer.ggml.tokens is missing): "
                              "give the tokenizer's folder beside it")
    match model:
        case "llama":
            codec: Codec = _sentencepiece(metadata, tokens)
        case "gpt2":
            codec = _byte_level(metadata, tokens)
        case _:
            raise CheckpointError(f"tokenizer.ggml.model is {model!r}; Ayllu reads 'llama' (SentencePiece) "
                                  "and 'gpt2' (byte-level BPE)")
    return codec, _named(metadata, codec)


def write_gguf(codec: Codec, named: Named) -> dict[str, Any]:
    """The `tokenizer.ggml.*` entries for a codec."""
    if isinstance(codec, HfCodec) and codec.is_byte_level:
        table = _byte_level_entries(codec)
    else:
        table = _sentencepiece_entries(as_sentencepiece(codec, "GGUF"))
    ids = {"bos_token_id": named.bos_id, "eos_token_id": next(iter(named.eos_ids), None),
           "eot_token_id": named.eos_ids[1] if len(named.eos_ids) > 1 else None,
           "unknown_token_id": named.unk_id, "padding_token_id": named.pad_id}
    table |= {_P + name: id for name, id in ids.items() if id is not None}
    return table | {_P + "add_bos_token": named.add_bos, _P + "add_eos_token": named.add_eos}


def _named(metadata: dict[str, Any], codec: Codec) -> Named:
    def id_of(name: str) -> int | None:
        id = metadata.get(_P + name)
        if id is None or id == 0xFFFFFFFF:               # llama.cpp's "none"
            return None
        if not 0 <= id < codec.size:
            raise CheckpointError(f"{_P}{name} is {id}, outside the vocabulary of {codec.size}")
        return int(id)

    eos = [id_of(name) for name in ("eos_token_id", "eot_token_id", "eom_token_id")]
    bos = id_of("bos_token_id")
    found = tuple(dict.fromkeys(i for i in (*eos, *turn_ends(codec.controls)) if i is not None))
    named = Named(bos_id=bos, eos_ids=found, pad_id=id_of("padding_token_id"),
                  unk_id=id_of("unknown_token_id"), add_bos=bos is not None)
    if codec.kind == "sentencepiece":
        named = replace(named, unk_id=codec.named.unk_id)
    adds = {field: metadata[_P + key] for field, key in (("add_bos", "add_bos_token"), ("add_eos", "add_eos_token"))
            if _P + key in metadata}
    return replace(named, **adds)


def _sentencepiece(metadata: dict[str, Any], tokens: Sequence[str]) -> spm.SentencePieceCodec:
    types = _column(metadata, "token_type", tokens) or [PieceType.NORMAL] * len(tokens)
    scores = _column(metadata, "scores", tokens)
    if scores is None:
        raise CheckpointError("tokenizer.ggml.scores is missing: without it the order of merges is unknown")
    pieces = [Piece(text or f"<empty_{id}>", float(score), PieceType(kind) if text else PieceType.UNUSED)
              for id, (text, score, kind) in enumerate(zip(tokens, scores, types, strict=True))]
    if not any(p.type == PieceType.UNKNOWN for p in pieces):
        raise CheckpointError("tokenizer.ggml.token_type marks no unknown piece (type 2): the vocabulary is damaged")
    eos = metadata.get(_P + "eos_token_id")
    return spm.build(pieces, bos_id=metadata.get(_P + "bos_token_id"), eos_id=eos,
                     pad_id=metadata.get(_P + "padding_token_id"),
                     dummy_prefix=bool(metadata.get(_P + "add_space_prefix", True)),
                     remove_extra_whitespaces=bool(metadata.get(_P + "remove_extra_whitespaces", False)))


def _sentencepiece_entries(codec: spm.SentencePieceCodec) -> dict[str, Any]:
    if codec.has_dummy_prefix and not codec.prefix_each_segment:
        warn("GGUF puts a space after special tokens too, where this tokenizer (legacy: false) does not: chats may get "
             "other ids in other programs")
    pieces = codec.pieces()
    if codec.added and [c.id for c in codec.added] != list(range(len(pieces), codec.size)):
        raise CheckpointError("added tokens take the place of pieces or leave gaps: GGUF can't hold this tokenizer")
    pieces += [Piece(c.text, -1e9, PieceType.CONTROL if c.special else PieceType.USER_DEFINED) for c in codec.added]
    return {_P + "model": "llama", _P + "pre": "default", _P + "tokens": [p.text for p in pieces],
            _P + "scores": [p.score for p in pieces], _P + "token_type": [int(p.type) for p in pieces],
            _P + "add_space_prefix": codec.has_dummy_prefix,
            _P + "remove_extra_whitespaces": codec.leading.strip_all}


def _byte_level(metadata: dict[str, Any], tokens: Sequence[str]) -> HfCodec:
    types = _column(metadata, "token_type", tokens) or [PieceType.NORMAL] * len(tokens)
    pre = metadata.get(_P + "pre", "gpt-2")
    if pre not in words.PATTERNS:
        raise CheckpointError(f"tokenizer.ggml.pre is {pre!r}; Ayllu knows {', '.join(sorted(words.PATTERNS))}")
    kinds = {PieceType.CONTROL: True, PieceType.UNKNOWN: True, PieceType.USER_DEFINED: False}
    added = [(id, text, kinds[PieceType(kind)]) for id, (text, kind) in enumerate(zip(tokens, types, strict=True))
             if kind in kinds]
    apart = {id for id, _, _ in added}
    vocab = {text: id for id, text in enumerate(tokens) if id not in apart}
    merges = [_pair(merge, vocab) for merge in metadata.get(_P + "merges") or []]
    table = byte_level_json(vocab, merges, added, words.PATTERNS[pre], ignore_merges=pre in words.WHOLE_WORDS)
    return HfCodec(json.dumps(table, ensure_ascii=False), Named())


def _byte_level_entries(codec: HfCodec) -> dict[str, Any]:
    model = codec.data["model"]
    pre = words.name_of(codec.data.get("pre_tokenizer"))
    if model.get("type") != "BPE" or pre is None:
        raise CheckpointError("GGUF holds byte-level BPE with a known rule for words "
                              f"({', '.join(sorted(words.PATTERNS))}); this tokenizer.json has another")
    special = {c.id: c.special for c in codec.controls}
    tokens = [codec.piece(id) for id in range(codec.size)]
    holes = [id for id, text in enumerate(tokens) if not text]
    for id in holes:
        tokens[id] = f"[PAD{id}]"
    kinds = [PieceType.UNUSED if id in set(holes) else PieceType.CONTROL if special.get(id) else
             PieceType.USER_DEFINED if id in codec.added_ids else PieceType.NORMAL for id in range(codec.size)]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {_P + "model": "gpt2", _P + "pre": pre, _P + "tokens": tokens, _P + "token_type": [int(k) for k in kinds],
            _P + "merges": merges}


def _pair(merge: str, vocab: dict[str, int]) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if left not in vocab or right not in vocab:
        raise CheckpointError(f"tokenizer.ggml.merges holds {merge!r}, but its parts are not in the vocabulary")
    return left, right


def _column(metadata: dict[str, Any], name: str, tokens: Sequence[str]) -> Sequence[Any] | None:
    column = metadata.get(_P + name)
    if column is not None and len(column) != len(tokens):
        raise CheckpointError(f"{_P}{name} has {len(column)} entries for {len(tokens)} tokens: the file is damaged")
    return column
