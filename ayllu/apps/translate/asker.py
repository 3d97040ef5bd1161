"""Texts in, translations out: from the memory, else from the model, checked, and asked again where they fail."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ayllu.apps.speaker import Answer, Speaker
from ayllu.apps.translate import prompts
from ayllu.apps.translate.holes import numbers
from ayllu.apps.translate.languages import SCRIPTS, Pair, share_in_script, strayed
from ayllu.apps.translate.marks import SHOWN, Parts, read
from ayllu.apps.translate.memory import PERSON, Entry, Memory
from ayllu.apps.translate.sentences import length

Origin = Literal["model", "memory", "person", "numbers"]
_LOOP = re.compile(r"(.{2,30}?)\1{3,}")
_SIGNS = "。．.!?！？…"


@dataclass(frozen=True)
class Ask:
    """One text. `parts` are the marks that it shows, `context` what stands before it."""

    text: str
    parts: Parts | None = None
    context: str = ""


@dataclass(frozen=True)
class Said:
    """Its translation; None where no answer passed, with what was wrong with the last one."""

    text: str | None
    origin: Origin = "model"
    probability: float | None = None
    fault: str = ""
    alike: Entry | None = None                           # the memory's entry that it was made from or shown beside


@dataclass
class Asker:
    """One pair of languages, one model, one memory."""

    speaker: Speaker
    pair: Pair
    memory: Memory | None = None
    prompt: str | None = None
    shows_alike: bool = True
    hits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("model", "memory", "person", "numbers"), 0))

    @property
    def maker(self) -> str:
        """Whose translations they are."""
        return self.speaker.name

    def ask(self, asks: Sequence[Ask]) -> list[Said]:
        """The same text is asked once. What the model says is kept before this returns."""
        known: dict[str, Said] = {}
        for one in asks:
            if one.text not in known and (found := self._remembered(one)) is not None:
                known[one.text] = found
        todo = list({one.text: one for one in asks if one.text not in known}.values())
        for again in (False, True):
            said = self._said(todo, again)
            known.update(zip((one.text for one in todo), said, strict=True))
            todo = [one for one, its in zip(todo, said, strict=True) if its.text is None]
        for one in asks:
            if known[one.text].text is not None:
                self.hits[known[one.text].origin] += 1
        return [known[one.text] for one in asks]

    def _remembered(self, one: Ask) -> Said | None:
        entry = self.memory.find(self.pair, one.text, self.maker) if self.memory else None
        if entry is None or fault(one, entry.target, self.pair):
            return None
        origin: Origin = "numbers" if entry.kind == "numbers" else "person" if entry.maker == PERSON else "memory"
        return Said(entry.target, origin, entry.probability, alike=entry if entry.kind == "numbers" else None)

    def _said(self, asks: Sequence[Ask], again: bool) -> list[Said]:
        if not asks:
            return []
        alike = [self.memory.alike(self.pair, one.text, 1) if self.memory and not self.speaker.is_small else []
                 for one in asks]
        is_small = self.speaker.is_small
        messages = [prompts.ask(self.pair, one.text, is_small, again, self.prompt, one.context, examples)
                    for one, examples in zip(asks, alike, strict=True)]
        fits = [i for i, m in enumerate(messages) if self.speaker.room(m) > 1]
        most = max((4 * self.speaker.count(asks[i].text) + 32 for i in fits), default=1)
        answers = self.speaker.answers([messages[i] for i in fits], max_tokens=most, temperature=0)
        said = [Said(None, fault="longer than the model's context takes")] * len(asks)
        for i, answer in zip(fits, answers, strict=True):
            said[i] = self._judged(asks[i], answer, next(iter(alike[i]), None))
        if self.memory:
            self.memory.add(self.pair, self.maker, [(a.text, s.text, s.probability)
                                                    for a, s in zip(asks, said, strict=True) if s.text is not None])
        return said

    def _judged(self, one: Ask, answer: Answer, alike: Entry | None) -> Said:
        text = ending_like(one.text, prompts.answer_text(answer.text))
        wrong = "cut off" if answer.finish == "length" else fault(one, text, self.pair) or (
            "another language" if strayed(SHOWN.sub("", text), self.pair) else "")
        probability = None if answer.logprob is None else math.exp(answer.logprob)
        return Said(None if wrong else text, "model", probability, wrong, alike)


def ending_like(source: str, answer: str) -> str:
    """The answer without the full stop that a heading or half a sentence never had."""
    ends = source.rstrip()[-1:]
    return answer if ends and not ends.isalnum() and ends not in ")）" else answer.rstrip(_SIGNS) or answer


def fault(one: Ask, answer: str, pair: Pair) -> str:
    """What is wrong with an answer, or nothing."""
    if not answer.strip():
        return "empty"
    if one.parts is not None and read(answer, one.parts) is None:
        return "marks lost"
    if one.parts is None and SHOWN.search(answer):
        return "marks of its own"
    source, answer = SHOWN.sub("", one.text), SHOWN.sub("", answer)
    if numbers(source) - numbers(answer):
        return "numbers lost"
    long, longer = length(source), length(answer)
    if longer > 4 * long + 12 or (long > 12 and longer * 6 < long):
        return "too long" if longer > long else "too short"
    loop = _LOOP.search(answer)
    if loop and not _LOOP.search(source) and any(map(str.isalnum, loop.group(1))):
        return "repeats itself"
    wrong = pair.target not in SCRIPTS and share_in_script(answer, pair.target) < 0.7
    missing = pair.target in SCRIPTS and share_in_script(answer, pair.target) == 0 and \
        (long > 2 or not set(answer.lower().split()) <= set(source.lower().split()))     # two words may be a name
    return "another language" if wrong or missing else ""
