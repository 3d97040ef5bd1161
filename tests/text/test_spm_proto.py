"""Our protobuf against SentencePiece's own message class (protobuf comes with the test environment)."""

import kinds
import pytest

from ayllu.errors import CheckpointError
from ayllu.text import spm_proto
from ayllu.text.spm_proto import Piece, PieceType, SpmModel

pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="the protobuf package is not installed")


def parse(data: bytes):
    message = pb2.ModelProto()
    message.ParseFromString(data)
    return message


def test_what_we_write_they_read():
    pieces = [Piece("<unk>", 0.0, PieceType.UNKNOWN), Piece("é▁好", -1.5), Piece("x" * 300, -1e9, PieceType.BYTE)]
    trainer, normalizer = spm_proto.llama_settings(pieces, control={"bos": (1, "<s>"), "eos": None})
    message = parse(SpmModel(pieces, trainer, normalizer).to_bytes())
    assert [(p.piece, p.score, p.type) for p in message.pieces] == [(p.text, p.score, p.type) for p in pieces]
    spec = message.trainer_spec
    assert (spec.model_type, spec.bos_id, spec.bos_piece, spec.eos_id, spec.pad_id, spec.byte_fallback) == (
        2, 1, "<s>", -1, -1, True)
    assert (message.normalizer_spec.add_dummy_prefix, message.normalizer_spec.remove_extra_whitespaces) == (True, False)


def test_what_they_write_we_read():
    message = parse(kinds.model_file())
    settings = spm_proto.read_settings(kinds.model_file())
    trainer, normalizer = settings.trainer, settings.normalizer
    assert (trainer[spm_proto.VOCAB_SIZE], trainer[spm_proto.PAD_ID]) == (message.trainer_spec.vocab_size, -1)
    assert trainer[spm_proto.UNK_SURFACE] == message.trainer_spec.unk_surface.encode()
    assert normalizer[spm_proto.NORMALIZER_NAME] == b"identity"


def test_the_prefix_is_switched_by_appending():
    message = parse(spm_proto.with_dummy_prefix(kinds.model_file(), False))
    assert not message.normalizer_spec.add_dummy_prefix
    assert message.normalizer_spec.name == "identity"
    assert len(message.pieces) == 900


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x80" * 12, b"\x0b\x00"])
def test_damage_is_named(data):
    with pytest.raises(CheckpointError, match="damaged SentencePiece model"):
        spm_proto.read_settings(data)
