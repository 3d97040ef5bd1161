"""Translation: texts or a page at once, files as a job."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ayllu.server.schema.base import Answer, Body

Code = Annotated[str, Field(min_length=2, max_length=8, pattern=r"^[a-z]+$")]
Text = Annotated[str, Field(max_length=10_000)]
Terms = Annotated[dict[str, str], Field(max_length=1000)]


class _Options(Body):
    model_config = ConfigDict(populate_by_name=True, extra="forbid", protected_namespaces=())

    to: Code
    source: Code | None = Field(default=None, alias="from", description="Found out where it is left away.")
    glossary: Terms = Field(default_factory=dict, description="Terms with the words that must stand for them; a term "
                            "with an empty word is kept.")
    check: bool = Field(default=False, description="Translate back, too, and mark what doesn't come back.")
    memory: bool = Field(default=True, description="Reuse and keep translations, where the server keeps anything.")


class TranslateRequest(_Options):
    """Texts, or a page of HTML."""

    model: str | None = Field(default=None, max_length=256)
    texts: Annotated[list[Text], Field(min_length=1, max_length=256)] | None = None
    html: Annotated[str, Field(max_length=1_000_000)] | None = None
    marked: bool = Field(default=False, description="<1>, </1> and <2/> in texts are marks that must come back.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.texts is None) == (self.html is None):
            raise ValueError("give one of texts and html")
        return self


class Translated(Answer):
    """One text, and what there is to say about its translation."""

    source: str
    translation: str
    origin: Literal["model", "memory", "person", "numbers", "kept", "other"]
    is_low: bool
    notes: list[str]
    probability: float | None = None
    round_trip: float | None = None
    alike: dict[str, Any] | None = None


class Translations(Answer):
    """All of them in their order; `html` where a page was asked for, with the doubtful texts only."""

    model: str
    source: str = Field(serialization_alias="from")
    to: str
    measured: dict[str, Any] | None = Field(default=None, description="Scores of this model on this pair; null where "
                                            "nobody measured it.")
    translations: list[Translated]
    html: str | None = None


class TranslatesInto(Answer):
    """What can be translated here."""

    languages: dict[str, str]
    suffixes: list[str]
    bilingual: list[str]
    measured: dict[str, Any]


class Correction(Body):
    """What a person says instead; it goes before any model's words from now on."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid", protected_namespaces=())

    to: Code
    source_language: Code = Field(alias="from")
    source: Annotated[str, Field(min_length=1, max_length=10_000)]
    translation: Annotated[str, Field(min_length=1, max_length=10_000)]


class Remembered(Answer):
    """How many entries the memory has now."""

    entries: int


class TranslateFiles(_Options):
    """The payload of a job: uploads, each translated into a file of its own."""

    files: list[Annotated[str, Field(max_length=64)]] = Field(min_length=1, max_length=100)
    bilingual: bool = False
