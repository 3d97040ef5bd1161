"""The reserved ids of a tokenizer, by what masks and packing use them for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ayllu.errors import ConfigError
from ayllu.text import special
from ayllu.text.tokenizer import Tokenizer

MODES = ("r", "s", "x")                                  # UL2's denoisers: regular, sequential, extreme


@dataclass(frozen=True)
class Marks:
    """Ids that are no text. An empty field means that the tokenizer has no such id."""

    vocab_size: int
    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    mask: int | None = None
    fim: tuple[int, ...] = ()                            # prefix, suffix, middle, end
    sentinels: tuple[int, ...] = ()
    modes: tuple[int, ...] = ()                          # in the order of MODES
    special: frozenset[int] = frozenset()                # every id that no text turns into, those above among them

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Marks":
        """The reserved ids of a tokenizer; those that it lacks stay empty."""
        def ids(pieces: list[str]) -> tuple[int, ...]:
            found = [tokenizer.piece_to_id(piece) for piece in pieces]
            return tuple(i for i in found if i is not None) if None not in found else ()

        (pad, mask) = (ids([piece])[:1] or (None,) for piece in (special.PAD, special.MASK))
        fim = ids([special.FIM_PREFIX, special.FIM_SUFFIX, special.FIM_MIDDLE, special.FIM_END])
        sentinels, modes = ids(special.SENTINELS), ids(special.DENOISERS)
        others = {tokenizer.bos_id, *tokenizer.eos_ids, pad[0], mask[0], *fim, *sentinels, *modes} - {None}
        return cls(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids[0] if tokenizer.eos_ids else None,
                   tokenizer.pad_id if pad[0] is None else pad[0], mask[0], fim, sentinels, modes,
                   tokenizer.special_ids | frozenset(i for i in others if i is not None))

    @cached_property
    def ordinary(self) -> np.ndarray:
        """(ordinary ids,) all that text may turn into, from which random replacements are drawn."""
        return np.setdiff1d(np.arange(self.vocab_size), np.fromiter(self.special, dtype=np.int64))

    def need(self, what: str, purpose: str) -> tuple[int, ...]:
        """The ids of one field, or an error that says which objective can't do without them."""
        found = getattr(self, what)
        ids = found if isinstance(found, tuple) else () if found is None else (found,)
        if not ids:
            raise ConfigError(f"{purpose} needs the reserved ids {what!r}, which this tokenizer lacks: use one that "
                              "Ayllu trained (ayllu tokenizer train), or another objective")
        return ids

    def mode(self, name: str) -> int:
        """The id of a UL2 mode."""
        return self.need("modes", f"mode={name!r}")[MODES.index(name)]
