"""A vocabulary made larger for another language or domain: pieces are added at the end, and no old id changes.

A BPE goes on where it had stopped: the texts are cut into the old pieces, and the commonest neighbours are merged,
again and again (arXiv:1508.07909, section 3.2, begun with pieces instead of characters). So every new piece is made of
pieces that were there before it, and is found when a text is encoded: the old merges come first, then the new ones.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ayllu.errors import ConfigError, DataError
from ayllu.text.codec import METASPACE, Codec
from ayllu.text.hf import HfCodec
from ayllu.text.spm import SentencePieceCodec
from ayllu.text.spm_proto import BPE, MODEL_TYPE, VOCAB_SIZE, Piece, PieceType, SpmModel
from ayllu.text.tokenizer import Tokenizer

LONGEST = 16                                             # characters of a new piece, as in SentencePiece
LEAST = 2                                                # times that a pair must occur
Word = tuple[str, ...]


@dataclass(frozen=True)
class Extended:
    """The larger tokenizer, and for each new id the old ids that spell it."""

    tokenizer: Tokenizer
    parts: dict[int, tuple[int, ...]]


def extend(tokenizer: Tokenizer, texts: Iterable[str], n_pieces: int, coverage: float = 0.9995) -> Extended:
    """Add at most `n_pieces` pieces: characters that had none, up to this share of the text's, and then merges."""
    codec: Codec = tokenizer.codec
    made: Codec
    if isinstance(codec, SentencePieceCodec):
        made, parts = _spm(codec, list(texts), n_pieces, coverage)
    elif isinstance(codec, HfCodec):
        made, parts = _hf(codec, list(texts), n_pieces)
    else:
        raise ConfigError(f"a {codec.kind} tokenizer can't be extended: convert it to tokenizer.json first")
    new = Tokenizer(made, named=tokenizer.named, settings=tokenizer.settings, chat_template=tokenizer.chat_template)
    return Extended(new, parts)


def merges(words: Counter[Word], n: int, known: set[str]) -> list[tuple[str, str]]:
    """At most `n` pairs in the order in which they are merged: each time the commonest, of equals the first in the
    alphabet, whose text isn't a piece yet. Counts are kept up to date, and a heap holds what they were."""
    spelled = [list(word) for word in words]
    times = list(words.values())
    counts: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for number, word in enumerate(spelled):
        for pair in pairwise(word):
            counts[pair] += times[number]
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    out, taken = list[tuple[str, str]](), set(known)
    while heap and len(out) < n:
        count, pair = heapq.heappop(heap)
        if -count != counts[pair]:                       # it was counted anew since
            if counts[pair] >= LEAST:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        if -count < LEAST:
            break
        joined = pair[0] + pair[1]
        if joined in taken or len(joined) > LONGEST:
            continue
        taken.add(joined)
        out.append(pair)
        touched = set[tuple[str, str]]()
        for number in sorted(where.pop(pair)):
            word = spelled[number]
            for before in pairwise(word):
                counts[before] -= times[number]
            word = spelled[number] = _joined(word, pair)
            for after in pairwise(word):
                counts[after] += times[number]
                where[after].add(number)
                touched.add(after)
        for one in touched:
            heapq.heappush(heap, (-counts[one], one))
    return out


def _joined(word: list[str], pair: tuple[str, str]) -> list[str]:
    out, at = list[str](), 0
    while at < len(word):
        together = at + 1 < len(word) and (word[at], word[at + 1]) == pair
        out.append(word[at] + word[at + 1] if together else word[at])
        at += 1 + together
    return out


def _may_grow(piece: str) -> bool:
    """Digits stay alone, and so do marks and bytes: Llama's tokenizers split them."""
    text = piece.lstrip(METASPACE)
    return bool(text) and all(c.isalpha() or "\u0300" <= c <= "\u036f" for c in text)


def _words(pieces: Iterable[str]) -> Iterator[Word]:
    """Stretches of pieces that may be merged: letters, a space at most before them."""
    word = list[str]()
    for piece in pieces:
        if not _may_grow(piece) or piece.startswith(METASPACE):
            if len(word) > 1:
                yield tuple(word)
            word = []
        if _may_grow(piece):
            word.append(piece)
    if len(word) > 1:
        yield tuple(word)


def _spm(codec: SentencePieceCodec, texts: list[str], n: int,
         coverage: float) -> tuple[SentencePieceCodec, dict[int, tuple[int, ...]]]:
    if codec.trainer.get(MODEL_TYPE, 1) != BPE or codec.added:
        raise ConfigError("only a SentencePiece BPE without tokens that other files add can be extended: give its "
                          "tokenizer.json instead" if codec.added else "only a BPE can be extended, this SentencePiece "
                          "model is of another type")
    old = codec.pieces()
    characters = _characters(texts, {piece.text for piece in old}, coverage)[:n]
    first = _with(codec, old, characters)
    words: Counter[Word] = Counter()
    for text in texts:
        words.update(_words(first.piece(id) for id in first.encode(text, continues=False)))
    pairs = merges(words, n - len(characters), {piece.text for piece in first.pieces()})
    if not characters and not pairs:
        raise DataError("the texts hold nothing that the vocabulary lacks: give more text, or text of another kind")
    made = _with(codec, old, [*characters, *(a + b for a, b in pairs)])
    ids: dict[str, tuple[int, ...]] = {piece.text: (number,) for number, piece in enumerate(old)}
    ids |= {c: tuple(codec.encode_rest(c)) for c in characters}
    return made, _parts(ids, [((c,), c) for c in characters] + [((a, b), a + b) for a, b in pairs], len(old))


def _characters(texts: list[str], known: set[str], coverage: float) -> list[str]:
    """Letters without a piece, the commonest first, as far as the share of all characters asks for them."""
    counts = Counter[str]()
    for text in texts:
        counts.update(text.replace(" ", METASPACE))
    missing = sum(n for c, n in counts.items() if c not in known)
    allowed, out = (1 - coverage) * counts.total(), []
    for c, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if missing <= allowed or n < LEAST:
            break
        if c not in known and c.isprintable():
            out.append(c)
            missing -= n
    return out


def _with(codec: SentencePieceCodec, old: list[Piece], more: list[str]) -> SentencePieceCodec:
    """The same model with more pieces, each with a lower score than all before it: scores order merges."""
    lowest = min(piece.score for piece in old if piece.type == PieceType.NORMAL)
    pieces = [*old, *(Piece(text, lowest - 1 - number) for number, text in enumerate(more))]
    trainer = {**codec.trainer, VOCAB_SIZE: len(pieces)}
    model = SpmModel(pieces, trainer, codec.normalizer).to_bytes()
    return SentencePieceCodec(model, prefix_each_segment=codec.prefix_each_segment)


def _hf(codec: HfCodec, texts: list[str], n: int) -> tuple[HfCodec, dict[int, tuple[int, ...]]]:
    data = json.loads(codec.text)
    model = data["model"]
    if model.get("type") != "BPE" or not codec.is_byte_level:
        raise ConfigError("of tokenizer.json files only byte-level BPEs (GPT-2, Llama 3, Qwen2) can be extended; a "
                          "SentencePiece model can be extended by its tokenizer.model")
    words: Counter[Word] = Counter()
    for text in texts:
        words.update(codec.words(text))
    pairs = merges(words, n, set(model["vocab"]) | {token["content"] for token in data.get("added_tokens") or []})
    if not pairs:
        raise DataError("the texts hold nothing that the vocabulary lacks: give more text, or text of another kind")
    as_lists = bool(model["merges"]) and not isinstance(model["merges"][0], str)
    model["merges"] += [[a, b] if as_lists else f"{a} {b}" for a, b in pairs]
    ids: dict[str, tuple[int, ...]] = {text: (id,) for text, id in model["vocab"].items()}
    model["vocab"].update({a + b: codec.size + number for number, (a, b) in enumerate(pairs)})
    parts = _parts(ids, [((a, b), a + b) for a, b in pairs], codec.size)
    return HfCodec(json.dumps(data, ensure_ascii=False), codec.named), parts


def _parts(ids: dict[str, tuple[int, ...]], made: list[tuple[Word, str]], first: int) -> dict[int, tuple[int, ...]]:
    """For each new id, in the order of making, the old ids that its parts come down to."""
    out = {}
    for number, (parts, text) in enumerate(made):
        ids[text] = tuple(id for part in parts for id in ids[part])
        out[first + number] = ids[text]
    return out
