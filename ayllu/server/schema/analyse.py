"""Understanding posts."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body

Name = Annotated[str, Field(min_length=1, max_length=60)]
Words = Annotated[list[Name], Field(max_length=50)]
Labels = Annotated[list[Name], Field(min_length=2, max_length=20)]


class Wanted(Body):
    """What is asked of posts, one or many."""

    brands: list[Name] = Field(default_factory=list, max_length=30, description="Names whose mentions are counted.")
    topics: dict[Name, Words] = Field(default_factory=dict, max_length=30,
                                      description="Given topics with words that name them; none: they are found.")
    labels: dict[Name, Labels] = Field(default_factory=dict, max_length=4,
                                       description="Name to labels that the bundled model ranks without examples "
                                                   "(zero-shot): about chance; /v1/jobs takes examples.")
    keep_names: bool = Field(default=False, description="Leave people's names as they are; mind the law.")


class GivenPost(Body):
    """One post."""

    text: str = Field(min_length=1, max_length=20_000)
    id: str | None = Field(default=None, max_length=100)
    time: str | None = Field(default=None, max_length=60)
    author: str | None = Field(default=None, max_length=200)
    group: str | None = Field(default=None, max_length=60)


class AnalyseRequest(Wanted):
    """A few posts at once; many are a job of the kind "analyse"."""

    posts: list[str | GivenPost] = Field(min_length=1, max_length=200)


class Analysed(Answer):
    """A row for each post, as posts.jsonl has it: `why` are [start, end, effect] in `text`."""

    posts: list[dict[str, Any]]
    told: dict[str, str] = Field(description="Who said what: the lexicon, a head, ...")
    measured: dict[str, dict[str, Any]] = Field(description="What the lexicon scores on public sets.")
    unmeasured: list[str] = Field(description="What comes from word lists that no labelled posts were at hand for.")


class AnalyseJob(Wanted):
    """A file of posts (an upload) as a job: a report, a table and all posts come out."""

    file: str = Field(max_length=64, description='An upload\'s id, or "sample" for made-up posts.')
    columns: dict[Literal["text", "time", "author", "group", "id"], Name] = Field(default_factory=dict)
    examples: dict[Name, str] = Field(default_factory=dict, max_length=4,
                                      description="Name to an upload of labelled rows (text, label): few-shot.")
    unit: Literal["hour", "day", "week", "month"] | None = None
