"""`ask`: a question to a collection, answered in pieces with numbered citations that were checked.

Without a model, or with a small one, the answer is a sentence of the documents; a larger one writes, and each of its
sentences must be supported by a place in the sources, else it is marked or dropped. Where nothing supports an answer,
that is said, and the nearest passages are offered.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pydantic import Field

from ayllu.apps.collection import Collection, Passage
from ayllu.apps.docqa.cite import SUPPORTED, Citation, Citations, support
from ayllu.apps.docqa.defining import Term
from ayllu.apps.docqa.extract import SURE, WIDE, Found, extract, read
from ayllu.apps.docqa.follow import standalone
from ayllu.apps.docqa.reader import short_answer
from ayllu.apps.docqa.rerank import reranked
from ayllu.apps.docqa.write import NOTHING, fitting, sentences_of
from ayllu.apps.speaker import Speaker
from ayllu.config import Settings
from ayllu.data.units import is_chinese
from ayllu.engine.dialogue import Message
from ayllu.errors import RequestError

MARKS = {"zh": "（文件中没有依据）", "en": " (not supported by the documents)"}
NONE = {"zh": "在这些文件中没有找到可靠的答案。", "en": "The documents don't seem to answer this."}
UNDEFINED = {"zh": "这些文件提到了“{}”，但没有一句说明它是什么。",
             "en": "The documents speak of “{}”, and no sentence in them says what it is."}
NEAR = {"zh": "最接近的段落：", "en": "The nearest passages:"}


class Asking(Settings):
    """How a question is answered."""

    k: int = Field(default=5, ge=1, le=50)               # passages that are read
    way: Literal["auto", "extract", "write"] = "auto"    # auto: a large model writes, else a sentence is taken
    where: dict[str, str] = Field(default_factory=dict)  # which documents, as in Collection.search
    sure: float = Field(default=SURE, ge=0, le=1)        # the confidence from which an answer is given
    unsupported: Literal["mark", "drop"] = "mark"        # sentences of a model that no source supports
    fuse: Literal["scores", "rrf"] = "scores"            # how words and vectors are put together
    rerank: bool = False                                 # the model orders the passages anew: slower
    max_tokens: int = Field(default=400, ge=1)


@dataclass(frozen=True)
class Reply:
    """What came of a question. Without support there are no citations, and `passages` are what comes nearest."""

    question: str                                        # as it was searched for
    answer: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    confidence: float                                    # 0 to 1, that the passages answer the question
    way: str                                             # extract, write or none
    unsupported: tuple[str, ...] = ()                    # sentences that were marked or dropped
    short: Citation | None = None                        # the part of the quote that answers by itself, as far as found

    @property
    def is_supported(self) -> bool:
        """Whether there is an answer with a source."""
        return bool(self.citations)

    def as_json(self) -> dict[str, Any]:
        """For --json and the API."""
        return {"answer": self.answer, "citations": [c.as_json() for c in self.citations],
                "is_supported": self.is_supported, "confidence": round(self.confidence, 4), "question": self.question,
                "way": self.way, "unsupported": list(self.unsupported),
                "short": self.short and self.short.as_json(),
                "passages": [{"source": p.source, "page": p.page, "start": p.start, "end": p.end, "text": p.text,
                              "document": p.document, "title": p.title} for p in self.passages]}


class Asked(Iterator[str]):
    """The answer as it comes; `reply` is there after the last piece. `citations` grow as they are made."""

    def __init__(self, question: str, collection: Collection, speaker: Speaker | None, history: Sequence[Message],
                 how: Asking) -> None:
        self._pieces = self._run(question, collection, speaker, history, how)
        self._citations = Citations(collection)
        self._said: list[str] = []
        self._reply: Reply | None = None
        self._short: Citation | None = None

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._said.append(piece)
        return piece

    def close(self) -> None:
        """Enough: the model is stopped."""
        self._pieces.close()

    @property
    def citations(self) -> tuple[Citation, ...]:
        """Those made so far."""
        return tuple(self._citations.found)

    @property
    def reply(self) -> Reply:
        """All of it; what is still to come is waited for."""
        for _ in self:
            pass
        assert self._reply is not None
        return self._reply

    def _run(self, question: str, collection: Collection, speaker: Speaker | None, history: Sequence[Message],
             how: Asking) -> Generator[str, None, None]:
        alone = standalone(question, history, speaker)
        bad: list[str] = []
        way = "none"
        with collection.snapshot() as still:             # what is quoted is what was found, whoever replaces it now
            self._citations = Citations(still)
            search = partial(still.search, where=how.where or None, way="rrf" if how.fuse == "rrf" else "hybrid",
                             weight=collection.dense_weight())               # which remembers it
            passages = search(alone, how.k)
            if how.rerank and speaker is not None:
                passages = reranked(alone, passages, speaker)
            asked = read(alone, still)
            wide = passages
            if term := asked.term.text:                  # each passage may speak of it, as "an adapter is"
                wide = search(f"{alone} {term.removesuffix('s')}", WIDE * how.k)
            asked = replace(asked, term=asked.term.used_in(passage.text for passage in wide))
            found = extract(asked, wide)
            sure = found[0].confidence if found else 0.0
            writes = how.way == "write" or (how.way == "auto" and speaker is not None and not speaker.is_small)
            if sure >= how.sure and not writes:
                way = "extract"
                yield from self._quoted(alone, found)
            elif passages and writes and speaker is not None:
                way = "write"
                yield from self._written(alone, passages, history, speaker, how, bad)
        language = "zh" if is_chinese(question) else "en"
        if not self.citations:
            way = "none"
            yield from _nothing(language, asked.term, passages, found, bool(self._said))
        self._reply = Reply(alone, "".join(self._said), self.citations, tuple(passages), sure, way, tuple(bad),
                            self._short)

    def _quoted(self, question: str, found: Sequence[Found]) -> Iterator[str]:
        if citation := self._citations.cite(found[0].span):
            if place := short_answer(question, citation.quote):
                self._short = self._citations.part(citation, place.start, place.end)
            quote = re.sub(r"(?<=[^\n.!?:;])\n[ \t]*(?=[^\W\d_])", " ", citation.quote)         # lines of a text
            yield f"{quote} [{citation.number}]"

    def _written(self, question: str, passages: Sequence[Passage], history: Sequence[Message], speaker: Speaker,
                 how: Asking, bad: list[str]) -> Iterator[str]:
        messages, read = fitting(question, passages, history, speaker)
        if not read:
            return
        speech = speaker.stream(messages, max_tokens=how.max_tokens, temperature=0.0)
        try:
            for sentence, cited in sentences_of(iter(speech)):
                if NOTHING in sentence.upper():
                    return
                place, share = support(sentence, read, cited)
                citation = self._citations.cite(place) if place and share >= SUPPORTED else None
                bare, space = sentence.rstrip(), sentence[len(sentence.rstrip()):] or " "
                if citation:
                    yield f"{bare} [{citation.number}]{space}"
                    continue
                bad.append(bare.strip())
                if how.unsupported == "mark":
                    yield f"{bare}{MARKS['zh' if is_chinese(bare) else 'en']}{space}"
        finally:
            speech.close()


def ask(question: str, collection: Collection, speaker: Speaker | None = None, history: Sequence[Message] = (),
        how: Asking | None = None) -> Asked:
    """Answer a question from a collection. `history`: the messages before it, for questions that point back."""
    how = how or Asking()
    if not question.strip():
        raise RequestError("the question is empty: write what you want to know")
    if how.way == "write" and speaker is None:
        raise RequestError("way 'write' needs a model: give a speaker, or way 'extract'")
    if how.where and not collection.holds(how.where):
        raise RequestError(f"no document has {', '.join(f'{name}={value}' for name, value in how.where.items())}: look "
                           "at what they have (`ayllu documents list --json`, under meta), or leave the filter away")
    return Asked(question.strip(), collection, speaker, history, how)


def _nothing(language: str, term: Term, passages: Sequence[Passage], found: Sequence[Found],
             is_more: bool) -> Iterator[str]:
    """That nothing was found, or no definition; and the passages, each from the sentence that comes nearest."""
    is_used = term.needs_definition and any(term.text.casefold() in p.text.casefold() for p in passages)
    yield ("\n\n" if is_more else "") + (UNDEFINED if is_used else NONE)[language].format(term.text)
    if passages:
        yield "\n" + NEAR[language]
        nearest = {one.span.passage.id: one.span.start for one in reversed(found)}
        for passage in passages[:3]:
            page = f", {passage.page}" if passage.page else ""
            text = re.sub(r"(?m)^#{1,6} +", "", passage.text[nearest.get(passage.id, passage.start) - passage.start:])
            text = " ".join(text.split())
            yield f"\n- {passage.source}{page}: {text[:160]}{'…' * (len(text) > 160)}"
