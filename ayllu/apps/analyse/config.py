"""What is analysed, and how."""

from typing import Literal

from pydantic import Field, field_validator

from ayllu.config import Settings

SENTIMENT, TOPIC = "sentiment", "topic"


class Analysis(Settings):
    """Everything that changes a result. Tables name what is read of a post: "sentiment", "topic" or a name of yours."""

    columns: dict[str, str | None] = Field(default_factory=dict)      # role (text, time, author, group, id) to column
    heads: dict[str, str] = Field(default_factory=dict)               # name to the folder of a trained head
    examples: dict[str, str] = Field(default_factory=dict)            # name to a file of labelled rows: few-shot
    zero_shot: dict[str, tuple[str, ...]] = Field(default_factory=dict)   # name to labels that the model ranks
    topics: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # given topic to words that name it
    brands: tuple[str, ...] = ()                         # whose mentions are counted
    model: str = "ayllu-mini"                            # what few-shot and zero-shot stand on
    name_topics: str | None = None                       # the chat model that writes names of found topics
    pseudonyms: bool = True                              # people become marks
    unit: Literal["hour", "day", "week", "month"] | None = None       # of trends; None: as the time span asks
    neutral: float = Field(default=0.1, ge=0, lt=0.5)    # so far from 0.5 a probability is called neither
    false_alarms: float = Field(default=0.05, gt=0, lt=1)             # the share of told changes that may be chance
    sample: int = Field(default=6000, gt=0)              # posts of each language that found topics are learned from
    seed: int = 0

    @field_validator("zero_shot")
    @classmethod
    def _two(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, labels in value.items():
            if len(set(labels)) < 2:
                raise ValueError(f"{name!r} has the one label {', '.join(labels)}: give two or more, with | between")
        return value
