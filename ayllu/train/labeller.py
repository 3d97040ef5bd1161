"""A trained head at work: texts in, labels with probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ayllu.adapters.lora import attach, fingerprint
from ayllu.adapters.store import read_adapter
from ayllu.checkpoint.head_file import ADAPTER, HeadFacts, OpenHead, open_head
from ayllu.checkpoint.load import build_model, open_checkpoint
from ayllu.data.label_loader import Reading, Texts
from ayllu.device import pick_device
from ayllu.errors import CheckpointError, ContextTooLong, RequestError
from ayllu.model.heads import Classifier
from ayllu.train.calibrate import probabilities
from ayllu.train.heads_loss import logits_of
from ayllu.train.label_packed import Packed, why_not
from ayllu.train.wide import Wide

Text = str | Sequence[str]


@dataclass(frozen=True)
class Answer:
    """What one text is. `labels` holds one, some or none; one for each word; none where the answer is a number."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]                      # calibrated, of all labels of a text
    value: float | None = None                           # the number, in regression
    cut: bool = False                                    # whether the text was longer than what is read
    words: tuple[float, ...] = ()                        # of words: the probability of each one's label

    def table(self) -> dict[str, Any]:
        """For JSON."""
        if self.value is not None:
            return {"value": self.value, "cut": self.cut}
        if self.words:
            return {"labels": list(self.labels), "words": list(self.words)}
        return {"labels": list(self.labels), "probabilities": self.probabilities, "cut": self.cut}


@dataclass(frozen=True)
class Labeller:
    """`Labeller.load("runs/mine/head")(["a text"])`."""

    model: Classifier
    facts: HeadFacts
    reading: Reading
    device: torch.device
    packed: Packed | None = None                         # what labels texts without filling
    wide: Wide | None = None                             # of a head that was trained with ngrams=true

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", is_fast: bool = False) -> "Labeller":
        """A folder that `ayllu train-head` wrote, or one of LlamaForSequenceClassification. On a CPU `is_fast`
        packs texts, several times as fast: with AMX in bfloat16, probabilities a little off, else in float32."""
        opened, place = open_head(path), pick_device(device)
        tokenizer = opened.open_tokenizer()
        if tokenizer is None:
            raise CheckpointError(f"{opened.path} has no tokenizer: put tokenizer.json or tokenizer.model beside it")
        model = opened.build() if opened.facts.base is None else _on_base(opened, opened.facts.base)
        reading = Reading(tokenizer, opened.facts.context, opened.facts.too_long)
        model = model.to(place)
        packed = Packed(model) if is_fast and why_not(model) is None else None
        wide = Wide.read(opened.path, opened.facts.head.n_outputs) if opened.facts.ngrams else None
        return cls(model, opened.facts, reading, place, packed, wide)

    def __call__(self, texts: Sequence[Text], rows: int = 32) -> list[Answer]:
        """One answer for each text; words where the head labels words. ContextTooLong where a text may not be cut."""
        read = [self._ids(number, text) for number, text in enumerate(texts)]
        many = Texts([ids for ids, _, _ in read], [marks if self.facts.head.kind == "tokens" else 0
                                                   for _, marks, _ in read])
        logits = self.packed.logits(many) if self.packed else logits_of(self.model, many, rows, self.device)
        if self.wide is not None:
            logits = self.wide.beside(logits, [str(text) for text in texts])
        cuts = [cut for _, _, cut in read]
        if self.facts.head.kind in ("single", "multi") and logits:
            p = probabilities(torch.stack(logits).double(), self.facts.head.kind, self.facts.temperature)
            return [self._labelled(row, cut) for row, cut in zip(p.tolist(), cuts, strict=True)]
        return [self._answer(found, cut) for found, cut in zip(logits, cuts, strict=True)]

    def _ids(self, number: int, text: Text) -> tuple[list[int], list[int], bool]:
        """The ids, a mark of 0 at each word's first one, and whether some were left out."""
        by_word = self.facts.head.kind == "tokens"
        if isinstance(text, str):
            words: str | tuple[str, ...] = tuple(text.split()) if by_word else text
        else:
            words = tuple(text)
        if not words or (isinstance(words, str) and not words.strip()):
            raise RequestError(f"text {number + 1} is empty: give one to label")
        if not isinstance(words, str) and not by_word:
            raise RequestError(f"text {number + 1} is a list: this head labels whole texts")
        ids, begins = self.reading.ids(words)
        long = len(ids) > self.reading.context
        if long and (by_word or self.reading.too_long == "error"):
            raise ContextTooLong(f"text {number + 1} has {len(ids):,} tokens, the head reads {self.reading.context:,}: "
                                 "shorten it, or train the head with --too-long begin or ends")
        starts = set(begins)
        return self.reading.fit(ids), [0 if i in starts else -100 for i in range(len(ids))], long

    def _answer(self, logits: torch.Tensor, cut: bool) -> Answer:
        if self.facts.head.kind == "regression":
            return Answer((), {}, logits[0].item() * self.facts.spread + self.facts.mean, cut)
        p = probabilities(logits.double(), "tokens", self.facts.temperature)
        best = p.argmax(-1).tolist()
        return Answer(tuple(self.facts.names[i] for i in best), {}, words=tuple(p.max(-1).values.tolist()))

    def _labelled(self, p: list[float], cut: bool) -> Answer:
        """Of a whole text's probabilities."""
        names = self.facts.names
        table = dict(zip(names, p, strict=True))
        if self.facts.head.kind == "multi":
            given = zip(names, p, self.facts.thresholds, strict=True)
            return Answer(tuple(name for name, value, least in given if value >= least), table, cut=cut)
        return Answer((names[p.index(max(p))],), table, cut=cut)


def _on_base(opened: OpenHead, base: str) -> Classifier:
    """The head on the model that it was trained on, which is elsewhere."""
    body = build_model(open_checkpoint(base), dtype=torch.float32)
    found, wanted = fingerprint(body), opened.facts.fingerprint
    if found != wanted:
        raise CheckpointError(f"{opened.path} was trained on another model than {base} is now ({wanted}, found "
                              f"{found}): put the old one back, or train the head again")
    if (opened.path / ADAPTER).is_dir():
        attach(body, read_adapter(opened.path / ADAPTER, body.config))
    return opened.with_score(body)
