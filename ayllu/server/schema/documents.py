"""Collections of documents, and questions to them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body
from ayllu.server.schema.media import WrittenOrSpoken

LONGEST = 4000                                           # characters of a question
Name = Annotated[str, Field(min_length=1, max_length=200)]
Where = Annotated[dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1000)]],
                  Field(max_length=20, description="Which documents: source (a pattern with *), kind, or metadata.")]


class NewCollection(Body):
    """A collection is called something."""

    name: Name


class Turn(Body):
    """A message of the conversation so far."""

    role: Literal["user", "assistant"]
    content: str = Field(max_length=20_000)


class SearchRequest(Body):
    """What is looked for. `words` is BM25, `dense` by vectors, `hybrid` both."""

    question: str = Field(min_length=1, max_length=LONGEST)
    k: int = Field(default=5, ge=1, le=50)
    where: Where = Field(default_factory=dict)
    way: Literal["hybrid", "rrf", "words", "dense"] = "hybrid"


class AskRequest(WrittenOrSpoken):
    """A question to a collection, written or spoken. `way`: extract (a sentence of the documents), write (the model's
    words, each sentence held against the sources), or auto: a small model doesn't write."""

    collection: str = Field(min_length=1, max_length=64)
    question: str = Field(default="", max_length=LONGEST)
    history: list[Turn] = Field(default_factory=list, max_length=50)
    k: int = Field(default=5, ge=1, le=50)
    where: Where = Field(default_factory=dict)
    way: Literal["auto", "extract", "write"] = "auto"
    unsupported: Literal["mark", "drop"] = "mark"
    fuse: Literal["scores", "rrf"] = Field(default="scores", description="How words and vectors are put together.")
    rerank: bool = Field(default=False, description="The model orders the passages anew: slower, for large ones.")
    model: str | None = Field(default=None, max_length=256)
    stream: bool = False


class IndexRequest(Body):
    """Payload of a job of the kind "index": uploads that go into a collection. They are read and then deleted."""

    collection: str = Field(min_length=1, max_length=64)
    files: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(min_length=1, max_length=10_000)
    meta: Where = Field(default_factory=dict)
    pictures: bool = Field(default=False, description="Whether the model says what is on pictures, also within PDF, "
                           "DOCX and HTML, and in recordings: its words become documents of their own.")


class CollectionFacts(Answer):
    """A collection in a list."""

    id: str
    name: str
    documents: int
    created_s: float


class CollectionList(Answer):
    """The newest first."""

    data: list[CollectionFacts]


class DocumentFacts(Answer):
    """A document in a list. `alike` is the id of an earlier one that says nearly the same."""

    id: int
    source: str
    kind: str
    title: str
    size: int
    characters: int
    pages: int
    notes: list[str]
    alike: int | None


class OneCollection(CollectionFacts):
    """A collection with its documents, and the files that couldn't be read, with the reason."""

    files: list[DocumentFacts]
    left_out: dict[str, str]


class DocumentText(Answer):
    """A part of a document: `text` stands in it from the character `start` to `end`, of `characters` in all."""

    id: int
    source: str
    title: str
    kind: str
    start: int
    end: int
    characters: int
    page: int | None
    text: str


class Passages(Answer):
    """What was found, best first."""

    passages: list[dict[str, Any]]


class Answered(Answer):
    """An answer with checked citations; without support there are none, and `passages` come nearest."""

    answer: str
    citations: list[dict[str, Any]]
    short: dict[str, Any] | None                         # the part of a quote that answers by itself, if any
    is_supported: bool
    confidence: float
    question: str
    way: str
    unsupported: list[str]
    passages: list[dict[str, Any]]
