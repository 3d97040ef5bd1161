"""Hugging Face's `tokenizer.json`, through the `tokenizers` package."""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer as Backend

from ayllu.errors import CheckpointError
from ayllu.text.codec import METASPACE, Control, Leading, Named, looks_like_markup, metaspace_bytes, turn_ends
from ayllu.text.words import Pattern


class HfCodec:
    """A tokenizer.json. `text` is kept as it came, so that saving writes the same file."""

    kind = "hf"
    utf8_errors = "replace"

    def __init__(self, text: str, named: Named | None = None):
        self.text = text
        self.data = _parse(text)
        self._backend, self._prefix_first = _build(self.data, text)
        self._added = {id: token.content for id, token in self._backend.get_added_tokens_decoder().items()}
        ordinary = {t["content"] for t in self.data.get("added_tokens") or [] if not t["special"]}
        # Ids are the library's own: it numbers added tokens anew where the file leaves gaps.
        self.controls = [Control(id, t.content, special=t.content not in ordinary, lstrip=t.lstrip, rstrip=t.rstrip)
                         for id, t in sorted(self._backend.get_added_tokens_decoder().items()) if t.special]
        self.size = max([self._backend.get_vocab_size(with_added_tokens=True), *(i + 1 for i in self._added)])
        steps = _steps(self.data.get("decoder"), "decoders")
        self._byte_level = any(step["type"] == "ByteLevel" for step in steps)
        self._byte_pieces = any(step["type"] == "ByteFallback" for step in steps)
        _check_decoder([step["type"] for step in steps])
        self.leading = Leading(strip=any(_strips(step) for step in steps))
        self.named = named or self._guess_named()

    def encode(self, text: str, *, continues: bool) -> list[int]:
        """Ids of ordinary text: special tokens in it are not matched (`encode_special_tokens`)."""
        if self._prefix_first and not continues:
            text = _with_prefix(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_rest(self, text: str) -> list[int]:
        """Ids of a text that goes on in the middle of a word."""
        return self.encode(text, continues=True)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many whole texts."""
        if self._prefix_first:
            texts = [_with_prefix(text) for text in texts]
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def words(self, text: str) -> list[tuple[str, ...]]:
        """The words of letters that a text is cut into before it is encoded, each as its pieces; none of one piece."""
        found, words = self._backend.encode(text, add_special_tokens=False), dict[int, list[int]]()
        for id, word in zip(found.ids, found.word_ids, strict=True):
            words.setdefault(-1 if word is None else word, []).append(id)
        letters = (ids for ids in words.values() if b"".join(map(self.piece_bytes, ids)).decode(
            errors="replace").strip().isalpha())
        return [tuple(self.piece(id) for id in ids) for ids in letters if len(ids) > 1]

    def piece(self, id: int) -> str:
        """The vocabulary's own spelling of an id."""
        return self._backend.id_to_token(id) or ""

    def piece_id(self, piece: str) -> int | None:
        """The id with this spelling."""
        return self._backend.token_to_id(piece)

    def piece_bytes(self, id: int) -> bytes:
        """Bytes of a token, by the rules of the file's decoder."""
        if id in self._added:
            return self._added[id].encode()
        piece = self.piece(id)
        if not self._byte_level:
            return metaspace_bytes(piece, self._byte_pieces)
        table = BYTE_OF_CHAR
        return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()

    def ends(self, text: str) -> list[int] | None:
        """Where each id's text ends, in characters of the text as given, whatever a normalizer made of it."""
        return [end for _, end in self._backend.encode(text, add_special_tokens=False).offsets]

    def definition(self) -> bytes:
        """The parts of the file that ids depend on, in one spelling."""
        keys = ("added_tokens", "normalizer", "pre_tokenizer", "model")
        return json.dumps({k: self.data.get(k) for k in keys}, sort_keys=True).encode()

    def files(self) -> dict[str, bytes]:
        """`tokenizer.json` alone."""
        return {"tokenizer.json": self.text.encode()}

    @property
    def is_byte_level(self) -> bool:
        """Whether pieces spell bytes (GPT-2, Llama 3) and not characters (SentencePiece)."""
        return self._byte_level

    @property
    def added_ids(self) -> frozenset[int]:
        """Ids of the file's added tokens, special or not."""
        return frozenset(self._added)

    def _guess_named(self) -> Named:
        """BOS from the post-processor; EOS by the names that Llama's relatives use."""
        first = _first_special(self.data.get("post_processor"))
        known = {c.text: c.id for c in self.controls if c.special}
        ends = [known[t] for t in ("</s>", "<|end_of_text|>", "<|endoftext|>") if t in known]
        eos = tuple(i for i in (*turn_ends(self.controls), *ends) if i != first)
        bos = first if first is not None else next((known[t] for t in ("<s>", "<|begin_of_text|>") if t in known), None)
        unk = self.data["model"].get("unk_token")
        return Named(bos_id=bos, eos_ids=eos, pad_id=next((known[t] for t in PAD_NAMES if t in known), None),
                     unk_id=self._backend.token_to_id(unk) if unk else None, add_bos=first is not None)


PAD_NAMES = ("<pad>", "[PAD]", "<|finetune_right_pad_id|>")


def _byte_chars() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 bytes are themselves, the other 68 become U+0100 and up."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(b): b for b in plain}
    others = [b for b in range(256) if b not in set(plain)]
    return table | {chr(0x100 + n): b for n, b in enumerate(others)}


BYTE_OF_CHAR = _byte_chars()
CHAR_OF_BYTE = {b: c for c, b in BYTE_OF_CHAR.items()}


def byte_level_json(vocab: dict[str, int], merges: Sequence[tuple[str, str]], added: Sequence[tuple[int, str, bool]],
                    pattern: Pattern, ignore_merges: bool) -> dict[str, Any]:
    """A byte-level BPE as Hugging Face's tokenizer.json; `added` has (id, text, special)."""
    patterns = [pattern] if isinstance(pattern, str) else pattern
    splits = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": is_special} for id, text, is_special in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": ignore_merges, "vocab": vocab, "merges": [list(m) for m in merges]}}


def _first_special(step: dict[str, Any] | None) -> int | None:
    """The id that the post-processor puts before every text."""
    if not step:
        return None
    if step["type"] == "Sequence":
        found = [_first_special(inner) for inner in step["processors"]]
        return next((id for id in found if id is not None), None)
    if step["type"] != "TemplateProcessing" or not step.get("single") or "SpecialToken" not in step["single"][0]:
        return None
    return step["special_tokens"][step["single"][0]["SpecialToken"]["id"]]["ids"][0]


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"tokenizer.json is not valid JSON ({error}): fetch the file again") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise CheckpointError("tokenizer.json holds no tokenizer: expected an object with a \"model\" entry")
    return data


def _build(data: dict[str, Any], text: str) -> tuple[Backend, bool]:
    """The library's tokenizer with special tokens switched off, and whether only a text's start gets a prefix.

    Markers that the file calls ordinary are declared special here, so that text typed by a user can't hold them
    either. Metaspace's "first" becomes "never" and we prepend: later segments of a text are encoded by themselves.
    """
    markers = [t for t in data.get("added_tokens") or [] if not t["special"] and looks_like_markup(t["content"])]
    first = [s for s in _steps(data.get("pre_tokenizer"), "pretokenizers")
             if s["type"] == "Metaspace" and s.get("prepend_scheme") == "first"]
    if markers or first:
        data = json.loads(text)
        for token in data.get("added_tokens") or []:
            token["special"] = token["special"] or looks_like_markup(token["content"])
        for step in _steps(data["pre_tokenizer"], "pretokenizers"):
            if step["type"] == "Metaspace" and step.get("prepend_scheme") == "first":
                step["prepend_scheme"] = "never"
        text = json.dumps(data)
    try:
        backend = Backend.from_str(text)
    except Exception as error:                           # the library raises bare Exception
        raise CheckpointError(f"tokenizer.json can't be used: {error}; fetch the file again") from error
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    return backend, bool(first)


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as a flat list."""
    if not part:
        return []
    return [s for inner in part[key] for s in _steps(inner, key)] if part["type"] == "Sequence" else [part]


def _strips(step: dict[str, Any]) -> bool:
    if step["type"] == "Strip":
        return step.get("content") == " " and step.get("start", 0) > 0
    return step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never"


def _check_decoder(types: list[str]) -> None:
    known = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    unknown = sorted(set(types) - known)
    if unknown or not types:
        raise CheckpointError(f"tokenizer.json has the decoder {unknown[0] if unknown else None!r}; Ayllu reads "
                              "byte-level and SentencePiece-style tokenizers (ByteLevel, Metaspace, ByteFallback)")


def _with_prefix(text: str) -> str:
    return text if not text or text[0] in (" ", METASPACE) else " " + text
