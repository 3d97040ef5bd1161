"""One tokenizer face over SentencePiece models, Hugging Face's tokenizer.json and tiktoken-style rank files.

Text that a user typed never yields special ids (`<s>`, `<|eot_id|>`), unless the caller passes allow_special=True.
"""

import codecs
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ayllu.errors import RequestError
from ayllu.text.codec import METASPACE, Codec, Control, Named
from ayllu.text.gguf_vocab import read_gguf, write_gguf
from ayllu.text.load import load
from ayllu.text.save import save

Span = tuple[int, int]                                   # (start, end) of characters or ids; end is exclusive


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, codec: Codec, named: Named | None = None, *, settings: dict[str, Any] | None = None,
                 chat_template: str | None = None):
        self.codec = codec
        self.named = named or codec.named
        self.settings = settings or {}                   # tokenizer_config.json as it came, if there was one
        self.chat_template = chat_template               # Jinja source
        self._special = {c.id: c for c in codec.controls if c.special}
        # The unknown piece stands for text that can't be spelled, so ordinary text may well yield it.
        self._forbidden = frozenset(c.id for c in codec.controls) - {self.named.unk_id}
        self._bytes: dict[int, bytes] = {}               # of the ids seen so far: texts use little of a vocabulary

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """A folder (tokenizer.json is preferred to tokenizer.model), or one file of any of the three kinds."""
        found = load(Path(path))
        return cls(found.codec, found.named, settings=found.settings, chat_template=found.chat_template)

    @classmethod
    def from_gguf(cls, metadata: dict[str, Any]) -> "Tokenizer":
        """From the `tokenizer.*` entries of a GGUF file, as plain Python values."""
        codec, named = read_gguf(metadata)
        return cls(codec, named, chat_template=metadata.get("tokenizer.chat_template"))

    def gguf_metadata(self) -> dict[str, Any]:
        """The `tokenizer.*` entries of a GGUF file that holds this tokenizer."""
        template = {"tokenizer.chat_template": self.chat_template} if self.chat_template else {}
        return write_gguf(self.codec, self.named) | template

    def save(self, folder: str | Path) -> None:
        """Write the files it came from, or equivalents, with tokenizer_config.json beside them."""
        save(Path(folder), self.codec, self.named, self.settings, self.chat_template)

    @property
    def kind(self) -> str:
        """"sentencepiece" or "hf" (tokenizer.json, also built from a rank file)."""
        return self.codec.kind

    @property
    def vocab_size(self) -> int:
        """Ids are 0 .. vocab_size - 1."""
        return self.codec.size

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text."""
        return self.named.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a text or an answer; the first is the one that `eos=True` appends."""
        return self.named.eos_ids

    @property
    def pad_id(self) -> int | None:
        """The id that fills batches."""
        return self.named.pad_id

    @property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary can't spell."""
        return self.named.unk_id

    @property
    def add_bos(self) -> bool:
        """Whether prompts of this model begin with BOS by its own convention: pass it as `bos=`."""
        return self.named.add_bos

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that are no text; `skip_special` leaves them out."""
        return frozenset(self._special)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what defines the ids: equal for the same vocabulary in another file format of its kind."""
        return hashlib.sha256(self.kind.encode() + b"\0" + self.codec.definition()).hexdigest()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, allow_special: bool = False) -> list[int]:
        """Ids of a text. `bos` and `eos` add those ids where the tokenizer has them."""
        trusted = [(0, len(text))] if allow_special else []
        return self._framed(self.encode_trusting(text, trusted), bos, eos)

    def encode_batch(self, texts: Sequence[str], *, bos: bool = False, eos: bool = False,
                     allow_special: bool = False) -> list[list[int]]:
        """Ids of many texts, faster than one by one."""
        if allow_special:
            return [self.encode(t, bos=bos, eos=eos, allow_special=True) for t in texts]
        for text in texts:
            _check_unicode(text)
        rows = self.codec.encode_batch(list(texts))
        clean = (row if self._forbidden.isdisjoint(row) else self._plain(text, continues=False)
                 for row, text in zip(rows, texts, strict=True))
        return [self._framed(row, bos, eos) for row in clean]

    def encode_trusting(self, text: str, trusted: Iterable[Span]) -> list[int]:
        """Ids of a text in which special tokens count only where they lie wholly inside a trusted span.

        A chat prompt is one text: the template's markers are trusted, what people wrote between them is not.
        """
        return [id for _, _, ids in self.segments(text, trusted) for id in ids]

    def segments(self, text: str, trusted: Iterable[Span],
                 markers: Iterable[Span] = ()) -> list[tuple[int, int, list[int]]]:
        """(start, end, ids) of each special token and of each stretch of ordinary text between them.

        In `markers` spans only those count that the vocabulary itself calls ordinary, such as `<think>`.
        """
        _check_unicode(text)
        found: list[tuple[int, int, list[int]]] = []
        at = 0
        spans = [(a, b, self.control_pattern) for a, b in trusted] + [(a, b, self.marker_pattern) for a, b in markers]
        for start, end, control in (*self._find_controls(text, spans), (len(text), len(text), None)):
            if start > at:
                found.append((at, start, self._plain(text[at:start], continues=bool(found))))
            if control:
                found.append((start, end, [control.id]))
            at = end
        return found

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of ids. Bytes that are no UTF-8 show as U+FFFD."""
        state = self.decoding(skip_special=skip_special)
        return "".join([state.push(id) for id in ids]) + state.flush()

    def decoding(self, *, skip_special: bool = False) -> "Decoding":
        """A decoder that takes ids one by one; `StreamDecoder` is its public face."""
        return Decoding(self, skip_special)

    def id_to_piece(self, id: int) -> str:
        """The vocabulary's own spelling of an id (`▁the`, `Ġthe`, `<0x0A>`); empty past its end."""
        return self.codec.piece(id)

    def piece_to_id(self, piece: str) -> int | None:
        """The id with this spelling, if there is one."""
        return self.codec.piece_id(piece)

    def bytes_of(self, id: int) -> bytes:
        """UTF-8 bytes of an ordinary id, whole characters or not; nothing past the vocabulary (padded models)."""
        known = self._bytes.get(id)
        if known is None:
            if id < 0:
                raise RequestError(f"id {id} is negative: ids are 0 .. {self.vocab_size - 1}")
            known = self._bytes[id] = self.codec.piece_bytes(id) if id < self.vocab_size else b""
        return known

    def _framed(self, ids: list[int], bos: bool, eos: bool) -> list[int]:
        before = [self.bos_id] if bos and self.bos_id is not None else []
        after = list(self.eos_ids[:1]) if eos else []
        return before + ids + after

    def _plain(self, text: str, *, continues: bool) -> list[int]:
        """Ids of ordinary text, never a special one, whatever the vocabulary can spell."""
        if not text:
            return []
        ids = self.codec.encode(text, continues=continues)
        return ids if self._forbidden.isdisjoint(ids) else self._spelled_out(text, continues)

    def _spelled_out(self, text: str, continues: bool) -> list[int]:
        """The vocabulary can spell a special token from letters: cut each one after its first letter."""
        cuts = [m.start() + 1 for m in self.control_pattern.finditer(text)]
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = self.codec.encode(parts[0], continues=continues)
        ids += [id for part in parts[1:] for id in self.codec.encode_rest(part)]
        if not self._forbidden.isdisjoint(ids):
            raise RequestError("the text spells a special token that this tokenizer can't write as ordinary text; "
                               "remove it, or pass allow_special=True if it is meant")
        return ids

    def _find_controls(self, text: str, spans: list[tuple[int, int, re.Pattern[str]]]
                       ) -> Iterable[tuple[int, int, Control]]:
        """Each span is searched by itself, so that nothing around it can swallow a token that lies inside."""
        at = 0
        for low, high, pattern in sorted(spans, key=lambda span: span[:2]):
            for match in pattern.finditer(text, low, high):
                start, end = match.span()
                control = self._by_text[match[0]]
                if control.lstrip:
                    start = max(at, len(text[:start].rstrip()))
                if control.rstrip:
                    end = len(text) - len(text[end:].lstrip())
                at = end
                yield start, end, control

    @cached_property
    def _by_text(self) -> dict[str, Control]:
        return {c.text: c for c in self.codec.controls}

    @cached_property
    def control_pattern(self) -> re.Pattern[str]:
        """Matches every special token and marker of the vocabulary in a text."""
        return _any_of(self._by_text)

    @cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches special tokens only, not markers."""
        return _any_of(c.text for c in self.codec.controls if c.special)

    @cached_property
    def marker_pattern(self) -> re.Pattern[str]:
        """Matches markers only."""
        return _any_of(c.text for c in self.codec.controls if not c.special)


class Decoding:
    """The state of turning ids into text: what is still incomplete, and whether any text has come yet."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool):
        self._tokenizer = tokenizer
        self._special = tokenizer._special
        self._skip = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.codec.utf8_errors)
        self._at_start = tokenizer.codec.leading.strip
        self._strip_all = tokenizer.codec.leading.strip_all

    def push(self, id: int) -> str:
        """Characters that are complete with this id."""
        if id in self._special:
            return self.flush() + self._show(id)
        data = self._tokenizer.bytes_of(id)
        return self._utf8.decode(self._without_prefix(id, data) if self._at_start else data)

    def flush(self) -> str:
        """U+FFFD for bytes that never became a character."""
        return self._utf8.decode(b"", final=True)

    def _show(self, id: int) -> str:
        if self._skip:
            return ""
        if id != self._tokenizer.unk_id:
            return self._special[id].text
        self._at_start = False                           # the unknown piece stands for text, though not for which
        return self._tokenizer.bytes_of(id).decode()

    def _without_prefix(self, id: int, data: bytes) -> bytes:
        """Drop the space that encoding put before the text; a space written as a byte piece is a real one."""
        has_space = self._tokenizer.id_to_piece(id).startswith(METASPACE)
        if has_space:
            data = data[1:]
        self._at_start = not data and (self._strip_all or not has_space)
        return data


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def _check_unicode(text: str) -> None:
    """A lone surrogate is half a character (JSON's "\\ud83d"): no tokenizer can write it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"the text holds half a character ({text[error.start]!a} at position {error.start}): "
                           "it must be valid Unicode") from error
