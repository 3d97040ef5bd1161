"""What is to be written: a topic alone is enough, or keywords."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ayllu.apps.write.measure import Language, language_of
from ayllu.config import Settings

Kind = Literal["article", "story", "poem", "product", "post", "dialogue"]
LENGTHS: dict[Kind, tuple[int, int]] = {                 # words in English, characters in Chinese, where none is asked
    "article": (600, 900), "story": (500, 800), "poem": (80, 100), "product": (150, 250), "post": (120, 180),
    "dialogue": (300, 450),
}
SECTION = {"en": 200, "zh": 300}                         # of one section, about
LONGEST = 20_000


class Brief(Settings):
    """Topic, form and wishes. `length` counts words, in Chinese characters."""

    topic: str = Field(default="", max_length=500, validate_default=True)      # the keywords, where it is left away
    keywords: tuple[str, ...] = Field(default=(), max_length=50)       # words that are to occur
    kind: Kind = "article"
    audience: str = Field(default="", max_length=200)
    tone: str = Field(default="", max_length=200)
    length: int | None = Field(default=None, ge=20, le=LONGEST)
    language: Literal["auto", "en", "zh"] = "auto"
    points: tuple[str, ...] = Field(default=(), max_length=50)         # that must be covered
    forbidden: tuple[str, ...] = Field(default=(), max_length=200)     # words that must not occur
    sections: int | None = Field(default=None, ge=1, le=40)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        words = values.get("keywords") if isinstance(values, dict) else None
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words) or \
                str(values.get("topic") or "").strip():
            return values
        mark = "、" if language_of("".join(words)) == "zh" else ", "
        return values | {"topic": mark.join(filter(None, map(str.strip, words)))[:500]}

    @field_validator("topic")
    @classmethod
    def _said(cls, topic: str) -> str:
        if not topic.strip():
            raise ValueError("the topic is empty: say in a few words what the text is to be about, or give keywords")
        return " ".join(topic.split())

    @field_validator("points", "forbidden", "keywords")
    @classmethod
    def _listed(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(" ".join(value.split()) for value in values if value.strip()))
        if any(len(value) > 300 for value in found):
            raise ValueError("a point or word has more than 300 characters: say it more briefly")
        return found

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for word in self.forbidden:
            for point in (*self.points, *self.keywords):
                if word.casefold() in point.casefold():
                    raise ValueError(f"the forbidden word {word!r} is in {point!r}, which is to occur: take one of "
                                     "them away")
        return self

    @property
    def tongue(self) -> Language:
        """The language of the text: as asked for, else that of the topic."""
        return language_of(self.topic) if self.language == "auto" else self.language

    @property
    def target(self) -> int:
        """Words or characters."""
        return self.length or LENGTHS[self.kind][self.tongue == "zh"]

    @property
    def n_sections(self) -> int:
        """One for short forms; else as many as have about SECTION units each."""
        if self.sections is not None:
            return self.sections
        if self.kind in ("poem", "product", "post"):
            return 1
        return min(40, max(1, round(self.target / SECTION[self.tongue])))
