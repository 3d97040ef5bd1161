"""Few-shot by prompt: examples before the text, labels by how likely they are, and two ways to take a bias away.

N texts  C labels
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayllu.errors import ConfigError
from ayllu.evaluate.likelihood import likelihoods
from ayllu.model.step import Runner
from ayllu.text.tokenizer import Tokenizer

TEMPLATE = "{text}\n{label}\n\n"
EMPTY = ("N/A", "[MASK]", "-")                           # texts that say nothing (arXiv:2102.09690, section 5)
Example = tuple[str, int]                                # a text, and the number of its label


@dataclass(frozen=True)
class Prompts:
    """How examples and questions are written. Parts are tokenised alone, so that a label has the same ids anywhere."""

    runner: Runner
    tokenizer: Tokenizer
    names: tuple[str, ...]                               # of the labels, as the model reads them
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        before, found, _ = self.template.partition("{label}")
        if not found or "{text}" not in before:
            raise ConfigError(f"the template {self.template!r} should have {{text}} and after it {{label}}")

    @property
    def room(self) -> int:
        """Tokens that examples and question have together."""
        return self.runner.config.max_context - max(len(self.label(c)) for c in range(len(self.names)))

    def label(self, number: int) -> list[int]:
        """The ids of a label."""
        return self.tokenizer.encode(self.names[number])

    def question(self, text: str) -> list[int]:
        """The ids up to where the label stands; of a text that takes more than half of the context, its beginning."""
        before = self.template.partition("{label}")[0]
        head, _, tail = before.partition("{text}")
        last = self.tokenizer.encode(tail) if tail else []
        first = self.tokenizer.encode(head + text)
        return first[:max(self.room // 2 - len(last), 1)] + last

    def is_cut(self, text: str) -> bool:
        """Whether `question` leaves a part of the text out."""
        before = self.template.partition("{label}")[0]
        head, _, tail = before.partition("{text}")
        last = self.tokenizer.encode(tail) if tail else []
        return len(self.tokenizer.encode(head + text)) > max(self.room // 2 - len(last), 1)

    def shown(self, examples: Sequence[Example], longest: int) -> tuple[list[int], int]:
        """BOS and the examples that fit before a question of `longest` ids, and how many didn't: the first are kept."""
        after = self.template.partition("{label}")[2]
        end = self.tokenizer.encode(after) if after else []
        ids = [self.tokenizer.bos_id] if self.tokenizer.bos_id is not None else self.tokenizer.encode("\n")
        for taken, (text, number) in enumerate(examples):
            one = [*self.question(text), *self.label(number), *end]
            if len(ids) + len(one) + longest > self.room:
                return ids, len(examples) - taken
            ids += one
        return ids, 0

    def log_p(self, texts: Sequence[str], contexts: Sequence[list[int]]) -> Tensor:                  # (N, C)
        """log p(label | context, text), over the labels alone. Texts under one context are read with it once."""
        pairs, ends = [], []
        for text, context in zip(texts, contexts, strict=True):
            asked = self.question(text)
            for c in range(len(self.names)):
                label = self.label(c)
                pairs.append((context, [*asked, *label]))
                ends.append(len(label))
        found = likelihoods(self.runner, pairs)
        scores = [sum(one.logprobs[-n:]) for one, n in zip(found, ends, strict=True)]
        return torch.tensor(scores, dtype=torch.float64).view(len(texts), len(self.names)).log_softmax(-1)


def contextual(log_p: Tensor, empty: Tensor) -> Tensor:  # (N, C), (E, C) -> (N, C)
    """Contextual calibration (arXiv:2102.09690, section 5): p / the mean p over texts that say nothing, normalised."""
    return (log_p - empty.exp().mean(0).log()).log_softmax(-1)


def batch_calibrated(log_p: Tensor) -> Tensor:           # (N, C) -> (N, C)
    """Batch calibration (arXiv:2309.17249, section 3): p / the mean p over the texts that are asked, normalised."""
    return (log_p - log_p.exp().mean(0).log()).log_softmax(-1)
