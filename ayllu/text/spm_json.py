"""A SentencePiece BPE as an equal tokenizer.json, for programs that read only that."""

from typing import Any

from ayllu.errors import CheckpointError
from ayllu.text import spm_proto
from ayllu.text.codec import METASPACE, Control, Named
from ayllu.text.spm_proto import Piece, PieceType, Value


def why_not(pieces: list[Piece], trainer: dict[int, Value], normalizer: dict[int, Value]) -> str | None:
    """What a tokenizer.json could not express exactly, or None."""
    kinds = {p.type for p in pieces}
    if trainer.get(spm_proto.MODEL_TYPE, 1) != spm_proto.BPE:
        return "it is no BPE model"
    if normalizer.get(spm_proto.CHARSMAP, b"") != b"":
        return "it normalizes characters"
    if normalizer.get(spm_proto.REMOVE_EXTRA_WHITESPACES, True):
        return "it removes extra spaces"
    if not normalizer.get(spm_proto.ESCAPE_WHITESPACES, True):
        return "it keeps spaces as they are"
    if kinds & {PieceType.USER_DEFINED, PieceType.UNUSED}:
        return "it has user-defined or unused pieces"
    return None


def tokenizer_json(pieces: list[Piece], named: Named, *, dummy_prefix: bool, added: list[Control]) -> dict[str, Any]:
    """The content of a tokenizer.json that gives the same ids for every text.

    The dummy prefix is a normalizer, which tokenizers applies to each segment between special tokens.
    """
    unk = next(p.text for p in pieces if p.type == PieceType.UNKNOWN)
    control = [Control(id, p.text) for id, p in enumerate(pieces) if p.type in (PieceType.CONTROL, PieceType.UNKNOWN)]
    prefix = [{"type": "Prepend", "prepend": METASPACE}] if dummy_prefix else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if dummy_prefix else []
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": c.id, "content": c.text, "single_word": False, "lstrip": c.lstrip, "rstrip": c.rstrip,
                          "normalized": False, "special": c.special} for c in (*control, *added)],
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "post_processor": _add_bos(pieces, named) if named.add_bos else None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": METASPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {"type": "BPE", "dropout": None, "unk_token": unk, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": any(p.type == PieceType.BYTE for p in pieces), "ignore_merges": False,
                  "vocab": {p.text: id for id, p in enumerate(pieces)}, "merges": [list(m) for m in merges_of(pieces)]}}


def merges_of(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best score first: SentencePiece merges by the score of the result.

    Of equal scores it takes the leftmost pair, tokenizers the one that stands first in the list. Runs of spaces (all
    of one score in Llama 2) grow from the left, so there the pair with the longest left part must come first.
    """
    scores = {p.text: p.score for p in pieces if p.type == PieceType.NORMAL}
    found = []
    for text, score in scores.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in scores and right in scores:
                found.append((-score, -len(left), left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _add_bos(pieces: list[Piece], named: Named) -> dict[str, Any]:
    if named.bos_id is None:
        raise CheckpointError("the tokenizer should add BOS but names no BOS id")
    bos = pieces[named.bos_id].text
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    return {"type": "TemplateProcessing", "single": [begin, first],
            "pair": [begin, first, {"SpecialToken": {"id": bos, "type_id": 1}}, second],
            "special_tokens": {bos: {"id": bos, "ids": [named.bos_id], "tokens": [bos]}}}
