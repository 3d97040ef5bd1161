"""Files and jobs."""

from typing import Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class File(Answer):
    """An upload, or a result (`job` made it)."""

    id: str
    name: str
    bytes: int
    job: str | None = None
    created_s: float


class Files(Answer):
    """Newest first."""

    data: list[File]


class Deleted(Answer):
    """What happened to it: a job that still ran is cancelled first, and deleted by a second call."""

    id: str
    deleted: bool


class SubmitJob(Body):
    """Work of a kind that /v1/workspace lists; each kind checks its own payload."""

    kind: str = Field(max_length=64)
    payload: dict[str, Any] = Field(default_factory=dict)
    label: str = Field(default="", max_length=200, description="What people call it in a list.")


class Job(Answer):
    """How far it is; `result` once it is done, `error` where it failed."""

    id: str
    kind: str
    label: str
    state: JobState
    progress: float
    result: Any = None
    error: str | None = None
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None


class Jobs(Answer):
    """Newest first, without their results."""

    data: list[Job]


class About(Answer):
    """What this server keeps and does beside answering."""

    keeps: bool = Field(description="Whether it has a folder for files and jobs.")
    kinds: list[str]
    model: str
    n_parameters: int
    is_small: bool = Field(description="Whether the model is too small to be trusted with free text.")
    context: int
    upload_bytes: int
    takes: list[Literal["text", "image", "audio"]]
