"""Writing."""

from typing import Any, Literal

from pydantic import Field

from ayllu.apps.write.brief import Brief
from ayllu.server.schema.base import Answer, Body

MOST_CHARACTERS = 200_000                                # of a text
Action = Literal["rewrite", "shorten", "expand", "continue", "tone", "titles"]


class Asked(Body):
    """Which model, how it is sampled, and whether the answer streams (server-sent events, each with a `type`)."""

    model: str | None = Field(default=None, max_length=256)
    seed: int | None = Field(default=None, ge=0, lt=2**53)
    stream: bool = False


class WriteRequest(Asked):
    """A brief. `sources` are ids of files of which nothing may be copied."""

    brief: Brief
    outline: list[str] = Field(default_factory=list, max_length=40, description="Your own headings.")
    temperature: float = Field(default=0.8, ge=0, le=2)
    sources: list[str] = Field(default_factory=list, max_length=20)


class ReviseRequest(Asked):
    """A text, or a selection of one, and what is to be done with it."""

    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    action: Action
    tone: str = Field(default="", max_length=200)
    wish: str = Field(default="", max_length=1000)


class CheckRequest(Body):
    """A text and the brief that it is held to."""

    text: str = Field(max_length=MOST_CHARACTERS)
    brief: Brief
    sources: list[str] = Field(default_factory=list, max_length=20)


class ExportRequest(Body):
    """A text in Markdown and the format of its file."""

    text: str = Field(max_length=MOST_CHARACTERS)
    format: Literal["md", "html", "docx"]
    title: str = Field(default="", max_length=500)


class DiffRequest(Body):
    """Two versions of a text."""

    old: str = Field(max_length=MOST_CHARACTERS)
    new: str = Field(max_length=MOST_CHARACTERS)


class VersionRequest(Body):
    """A further version of a draft."""

    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    note: str = Field(default="", max_length=200)


class BatchRequest(Body):
    """Payload of a job of the kind "write": a table of briefs that was uploaded."""

    file: str = Field(min_length=1, max_length=64)
    seed: int = Field(default=0, ge=0, lt=2**53)


class Written(Answer):
    """A text with its checks. `draft` is where it is kept; null where nothing is."""

    outline: list[str]
    text: str
    checks: dict[str, Any]
    draft: str | None


class Revised(Answer):
    """What came of a revision: for "continue" only what is added, for "titles" lines, which aren't checked."""

    text: str
    checks: dict[str, Any] | None


class Checked(Answer):
    """What the checks found; `faults` names those that aren't met."""

    length: int
    target: int
    unit: str
    faults: list[str]
    points: list[dict[str, Any]]
    missing: list[str]
    forbidden: list[dict[str, Any]]
    repetition: float
    repeated: list[dict[str, Any]]
    copies: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    unread: str


class Changes(Answer):
    """Pairs of "same", "removed" or "added" and a text: "same" and "removed" joined are the old text, "same" and
    "added" the new one."""

    changes: list[list[str]]


class DraftList(Answer):
    """The newest first."""

    data: list[dict[str, Any]]


class OneDraft(Answer):
    """A draft with all its versions, the oldest first."""

    id: str
    title: str
    brief: dict[str, Any]
    created_s: float
    versions: list[dict[str, Any]]


class Version(Answer):
    """The number of a version."""

    version: int
