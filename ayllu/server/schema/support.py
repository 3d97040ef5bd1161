"""Customer service: what a web page's widget sends and gets, and what people of the business see and do."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body
from ayllu.server.schema.media import WrittenOrSpoken

Secret = Annotated[str, Field(min_length=1, max_length=64, description="What the first answer gave: it opens this "
                              "conversation and no other.")]
Language = Annotated[str | None, Field(max_length=35, description="A tag such as zh-CN.")]


class Say(WrittenOrSpoken):
    """A customer's message, written or spoken. Without a conversation a new one begins."""

    text: str = Field(default="", max_length=1_000_000)  # the rules say fewer; half a character is refused by this
    conversation: Secret | None = None
    customer: str = Field(default="", max_length=200, description="What your page calls this customer; may be empty.")
    language: Language = None


class Read(Body):
    """What was said since."""

    conversation: Secret
    after: int = Field(default=0, ge=0, lt=2**62, description="The number of the last message that is known.")


class Rate(Body):
    """A thumb for one answer, or 1 to 5 for the whole."""

    conversation: Secret
    message: int | None = Field(default=None, ge=1, lt=2**62)
    thumb: Literal[-1, 1] | None = None
    satisfaction: int | None = Field(default=None, ge=1, le=5)


class Forget(Body):
    """Delete this conversation."""

    conversation: Secret


class Persona(Answer):
    """Who answers, in the language that fits best."""

    name: str
    shop: str
    greeting: str
    language: str
    is_sample: bool
    hears: bool = Field(description="Whether messages may be spoken.")


class Citation(Answer):
    """A quote with its place in the page."""

    source: str
    heading: str
    quote: str
    start: int
    end: int


class Said(Answer):
    """One message, as customers see it."""

    number: int
    role: Literal["customer", "assistant", "operator"]
    kind: str
    text: str
    citations: list[Citation]
    related: list[str]
    thumb: int | None
    created_s: float


class Talk(Answer):
    """Messages of a conversation, and whether a person has it."""

    conversation: str
    state: Literal["open", "waiting", "taken", "closed"]
    messages: list[Said]


class Done(Answer):
    """It was done."""

    ok: bool = True


class Row(Answer):
    """A conversation in the operator's list."""

    number: int
    customer: str
    language: str
    state: Literal["open", "waiting", "taken", "closed"]
    operator: str | None
    satisfaction: int | None
    created_s: float
    updated_s: float


class Rows(Answer):
    """Conversations, those that wait for a person first."""

    data: list[Row]


class Full(Answer):
    """A conversation for a person of the business: with the facts of each answer."""

    conversation: Row
    messages: list[dict[str, Any]]


class Act(Body):
    """Take over, give back to the assistant, or close."""

    do: Literal["take", "release", "close"]


class Reply(Body):
    """A person's words."""

    text: str = Field(min_length=1, max_length=10_000)


class Overview(Answer):
    """Tickets, questions without an answer, and figures."""

    tickets: list[dict[str, Any]]
    unanswered: list[dict[str, Any]]
    figures: dict[str, Any]
    shop: str
    is_sample: bool
