"""Which special tokens stand for images and sounds in a rendered conversation."""

from ayllu.errors import DataError
from ayllu.text.marks import MEDIA
from ayllu.text.tokenizer import Tokenizer


def marks_of(tokenizer: Tokenizer) -> dict[str, str]:
    """For each stand-in its special token: <image> and <audio>, or the unknown token where a vocabulary has none."""
    known = {control.text for control in tokenizer.codec.controls}
    unknown = tokenizer.named.unk_id
    found = {}
    for kind, stand_in in MEDIA.items():
        if f"<{kind}>" in known:
            found[stand_in] = f"<{kind}>"
        elif unknown is not None and tokenizer.id_to_piece(unknown) in known:
            found[stand_in] = tokenizer.id_to_piece(unknown)
        else:
            raise DataError(f"this tokenizer has no token <{kind}> and no unknown token that could stand for one: "
                            "take a model whose vocabulary has one")
    return found


def mark_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of these tokens."""
    texts = set(marks_of(tokenizer).values())
    return sorted({control.id for control in tokenizer.codec.controls if control.text in texts})
