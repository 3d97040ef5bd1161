"""Answers of a given form: JSON Schema, a regular expression, one of several texts, or a Lark grammar.

The grammar is llguidance's work (the extra `grammar`): it says at each step which ids may follow. Compiling takes a
while, so it is done before a request is queued (`Service` does it in another thread) and kept for the next one; each
sample then walks a copy. Sizes and the work of each step are limited, since grammars come from strangers.

R rows with a grammar  V vocabulary
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ayllu.engine.request import Grammar
from ayllu.errors import RequestError, extra
from ayllu.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

MOST_TEXT = 64 * 1024                                    # characters of a grammar
NO_GRAMMARS = ("answers of a given form need the package llguidance where the engine runs (pip install "
               "'ayllu[grammar]') and a model with an end id")
KEPT = 64                                                # compiled grammars


class Grammars:
    """Compiles grammars for one vocabulary. May be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Sequence[int], vocab_size: int) -> None:
        """`vocab_size` is the model's, which may be padded; an answer ends by any of `eos_ids`."""
        with extra("grammar", "an answer of a given form"):
            import llguidance
        eos_ids = [id for id in eos_ids if id < vocab_size]
        if not eos_ids:
            raise RequestError("answers of a given form need an end id, and this model has none")
        self.eos_id, self.eos_ids, self.vocab_size = eos_ids[0], eos_ids, vocab_size
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Vocabulary(tokenizer, self.eos_ids, vocab_size)), n_vocab=vocab_size)
        self._limits = llguidance.LLParserLimits(max_grammar_size=50_000, max_lexer_states=50_000,
                                                 verbose_errors=False)
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, grammar: Grammar) -> "LLMatcher":
        """A fresh walk through a grammar, at its beginning."""
        with self._lock:
            found = self._compiled.get(grammar)
            if found is not None:
                self._compiled.move_to_end(grammar)
        if found is None:
            found = self._compile(grammar)
            with self._lock:
                self._compiled[grammar] = found
                while len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
        return found.deep_copy()

    def allowed(self, matchers: Sequence["LLMatcher"]) -> Tensor:
        """Which ids may follow, (R, V) bool."""
        masks = np.zeros((len(matchers), -(-self.vocab_size // 32)), np.int32)
        for mask, matcher in zip(masks, matchers, strict=True):
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        bits = np.unpackbits(masks.view(np.uint8), axis=-1, bitorder="little")
        bits[:, self.eos_ids] = bits[:, self.eos_id, None]   # llguidance knows the first; a chat may end by another
        return torch.from_numpy(bits[:, :self.vocab_size].astype(np.bool_))

    def takes_end(self, matcher: "LLMatcher", token: int) -> bool:
        """Walk on by an id; whether it was the end. Raises where the walk became too costly to go on."""
        if matcher.is_error() or not (token in self.eos_ids or matcher.consume_token(token)):
            raise RequestError(f"the answer's form can't be followed any further: {matcher.get_error()}; "
                               "simplify the schema or grammar")
        return token in self.eos_ids

    def _compile(self, grammar: Grammar) -> "LLMatcher":
        from llguidance import LLMatcher

        if len(grammar.text) > MOST_TEXT:
            raise RequestError(f"the grammar has {len(grammar.text)} characters, at most {MOST_TEXT} are taken")
        try:
            source = _source(grammar)
        except ValueError as error:
            raise RequestError(f"the {grammar.kind} is not valid: {error}") from error
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise RequestError(f"the {grammar.kind} can't be followed: {matcher.get_error()}")
        return matcher


class _Vocabulary:
    """What llguidance wants to know of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Sequence[int], vocab_size: int) -> None:
        self._encode = tokenizer.codec.encode_rest       # as the middle of a text: no space is put before it
        self.eos_token_id, self.bos_token_id = eos_ids[0], tokenizer.bos_id
        self.special_token_ids = sorted(tokenizer.special_ids | set(eos_ids))
        special = set(self.special_token_ids)
        self.tokens = [b"" if i in special else tokenizer.bytes_of(i) for i in range(vocab_size)]
        for i in special:                                # marks must have a name to be told apart from text
            self.tokens[i] = f"<|{i}|>".encode()

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _source(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    match grammar.kind:
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.text)
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)
        case "choice":
            choices = json.loads(grammar.text)
            if not (isinstance(choices, list) and choices and all(isinstance(c, str) and c for c in choices)):
                raise ValueError("expected a JSON list of texts that aren't empty")
            return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, choices)))
