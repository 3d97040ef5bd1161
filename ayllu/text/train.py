"""Train a Llama-2-style tokenizer: SentencePiece BPE with byte fallback, split digits and a dummy prefix."""

import io
from collections.abc import Iterable, Iterator

import sentencepiece as spm

from ayllu.errors import ConfigError, DataError
from ayllu.text.special import RESERVED

MAX_SENTENCE_BYTES = 4192                     # SentencePiece's own limit: longer lines would be skipped, so we split


def train_sentencepiece(texts: Iterable[str], vocab_size: int, coverage: float = 0.998, threads: int = 2,
                        max_sentences: int = 2_000_000, seed: int = 0) -> bytes:
    """Train on `texts` and return the bytes of a `tokenizer.model`.

    `coverage` is the share of character occurrences that get a piece of their own; the rest is spelled in bytes.
    Ids: 0 <unk>, 1 <s>, 2 </s>, then the reserved pieces, the 256 bytes, and what was learned.
    """
    smallest = 3 + len(RESERVED) + 256
    if vocab_size <= smallest:
        raise ConfigError(f"vocab_size={vocab_size} leaves no room: {smallest} ids are reserved pieces and bytes")
    spm.set_random_generator_seed(seed)
    model = io.BytesIO()
    lines = _Lines(texts)
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=vocab_size, model_type="bpe",
            character_coverage=coverage, byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
            control_symbols=RESERVED, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, unk_surface=" \N{DOUBLE QUESTION MARK} ",
            input_sentence_size=max_sentences, shuffle_input_sentence=True,
            max_sentence_length=MAX_SENTENCE_BYTES, num_threads=threads, minloglevel=1)
    except RuntimeError as error:
        if lines.failed is not None:                     # the texts could not be read: that error says more
            raise lines.failed from None
        cure = ("the texts have more characters than ids are left for: ask for a larger vocab_size or a lower coverage"
                if "required_chars" in str(error) else "give more text, or ask for a smaller vocab_size")
        raise DataError(f"SentencePiece could not train a vocabulary of {vocab_size} ({error}); {cure}") from error
    return model.getvalue()


class _Lines:
    """The lines of texts; keeps the error that reading them raised, which SentencePiece turns into a bare string."""

    def __init__(self, texts: Iterable[str]):
        self.texts = texts
        self.failed: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            yield from _sentences(self.texts)
        except Exception as error:
            self.failed = error
            raise


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Lines, long ones in parts that SentencePiece takes whole."""
    for text in texts:
        for line in text.split("\n"):
            if len(line.encode("utf-8", "surrogatepass")) <= MAX_SENTENCE_BYTES:
                yield line
            else:
                part = MAX_SENTENCE_BYTES // 4                           # a character takes at most 4 bytes
                yield from (line[i:i + part] for i in range(0, len(line), part))
