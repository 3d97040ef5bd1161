"""What a model still does beyond the length that it was trained with: nats per token by position, and hidden keys.

Everything goes through the package's own runner in float32. A window of N tokens is read from its begin, and only its
second half is judged, so that a row of the table says what tokens N/2 to N cost. Dynamic NTK, which depends on the
length, turns each window as transformers would: all of it by the window's own length.

T tokens of a window  D width  V vocabulary
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from passkey_model import BOOKS, CONTEXT, DIGITS, HELD_OUT, prompt_of
from torch import Tensor

from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.texts import documents
from ayllu.engine.runner import make_runner
from ayllu.model.llama import Llama
from ayllu.model.step import Batch, Runner
from ayllu.model.stretch import stretched

HEAD_ROWS = 1024                                         # tokens whose logits exist at once
ZH = BOOKS.parents[1] / "vernacular_zh" / "train.jsonl.zst"


@dataclass(frozen=True)
class Reader:
    """A model at its trained context, and long texts as its ids."""

    name: str
    model: Llama
    trained: int
    texts: tuple[Tensor, ...]                                                 # (tokens,) each
    went_on: str | None = None                           # the scaling that it was trained further with

    def runner(self, scaling: str | None) -> Runner:
        """With other positions; the weights are shared."""
        config = self.model.config.model_copy(update={"max_context": self.trained, "rope_scaling": None})
        config = stretched(config, scaling)
        model = Llama(config)
        model.load_state_dict(self.model.state_dict(), assign=True)
        return make_runner(model.eval(), shares=True)


def bundled(context: int, n: int) -> Reader:
    """ayllu-mini and books of both languages, the last ones of their files."""
    found = load_checkpoint("ayllu-mini", dtype="float32")
    assert found.tokenizer is not None
    texts = []
    for file in (BOOKS, ZH):
        long = [text for text in documents(file) if len(text) > 6 * context][-n:]
        texts += [torch.tensor(found.tokenizer.encode(text[:6 * context])[:context + 1]) for text in long]
    return Reader("ayllu-mini", found.model, found.config.max_context, tuple(texts))


def passkey(folder: Path, name: str, context: int, n: int, went_on: str | None = None) -> Reader:
    """The small model over bytes, and books that it never saw."""
    model = load_checkpoint(folder, dtype="float32").model
    books = [text.encode() for text in list(documents(BOOKS))[-HELD_OUT:]]
    long = [book for book in books if len(book) > context + 1][:n]
    return Reader(name, model, CONTEXT, tuple(torch.tensor(list(book[:context + 1])) for book in long), went_on)


@torch.inference_mode()
def nats(reader: Reader, scaling: str | None, length: int, n_windows: int) -> float:
    """The mean loss of tokens length/2 to length, over windows of all texts."""
    runner, losses = reader.runner(scaling), list[float]()
    for text in reader.texts:
        for start in range(0, min(n_windows * length, len(text) - length), length):
            window = text[start:start + length + 1]
            hidden = read(runner, window[:-1])[length // 2:]                  # (T/2, D)
            labels = window[1 + length // 2:]
            for h, label in zip(hidden.split(HEAD_ROWS), labels.split(HEAD_ROWS), strict=True):
                logp = runner.logits(h).float().log_softmax(-1)               # (rows, V)
                losses += (-logp.gather(1, label[:, None])[:, 0]).tolist()
    return sum(losses) / len(losses)


@torch.inference_mode()
def keys_found(reader: Reader, scaling: str | None, length: int, depths: Sequence[float], n_keys: int) -> float:
    """The share of keys of which all digits are the likeliest ones, each after those before it: greedy decoding."""
    runner, rng, right = reader.runner(scaling), random.Random(length), 0
    for depth in depths:
        for _ in range(n_keys):
            text = bytes(rng.choice(reader.texts).tolist())
            key = rng.randrange(10**(DIGITS - 1), 10**DIGITS)
            answer = torch.tensor(list(b"%d" % key))
            prompt = prompt_of(text, length - DIGITS, key, depth, rng.randrange(max(1, len(text) - length)))
            ids = torch.cat((torch.tensor(list(prompt)), answer[:-1]))
            likeliest = runner.logits(read(runner, ids)[-DIGITS:]).argmax(-1)
            right += int(torch.equal(likeliest, answer))
    return right / (len(depths) * n_keys)


def read(runner: Runner, ids: Tensor) -> Tensor:                              # (T,) -> (T, D)
    """The hidden states of a text, read as a prompt is: in pieces through the dense cache."""
    return runner.hidden(Batch(ids[None], runner.new_cache([0], len(ids))))[0]
