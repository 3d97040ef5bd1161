"""The rules of one business, a TOML file: who speaks, what a person must answer, what is never promised."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ayllu.apps.support.hours import Hours
from ayllu.apps.support.phrases import first_match, pattern_of, plain
from ayllu.config import Settings, load_recipe

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


class Persona(Settings):
    """The assistant's name and its fixed sentences, in one language."""

    name: str
    shop: str
    greeting: str
    thanks: str
    goodbye: str
    unknown: str
    handed_over: str
    waiting: str


class Phrases(Settings):
    """What has phrases (phrases.py says how they are written)."""

    phrases: tuple[str, ...] = Field(min_length=1)

    @field_validator("phrases")
    @classmethod
    def _can_be_read(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        for phrase in phrases:
            if pattern_of(phrase).search(""):
                raise ValueError(f"the phrase {phrase!r} fits everything: write at least one word")
        return phrases


class Topic(Phrases):
    """A topic that isn't answered from the pages: handed over, or declined with a sentence of its own."""

    name: str
    do: Literal["hand_over", "decline"]
    en: str = ""
    zh: str = ""


class Forbidden(Phrases):
    """What no answer may contain."""

    why: str


class Synonyms(Settings):
    """Words that mean the same here."""

    words: tuple[str, ...] = Field(min_length=2)


class SupportLimits(Settings):
    """What one customer may ask for."""

    message_characters: int = Field(default=2000, ge=1)
    messages_per_minute: int = Field(default=20, ge=1)   # from one address
    conversation_messages: int = Field(default=200, ge=2)
    remembered_messages: int = Field(default=12, ge=0)


class Cost(Settings):
    """For the operator's figures."""

    per_million_tokens: float = Field(default=0, ge=0)
    currency: str = "EUR"
    person_minutes: float = Field(default=5, ge=0)


class Rules(Settings):
    """The whole file."""

    persona: dict[Language, Persona] = Field(min_length=1)
    min_confidence: float = Field(default=0.28, ge=0, le=1)
    after_unknown: int = Field(default=2, ge=1)
    keep_days: int = Field(default=90, ge=1)
    hours: Hours = Hours()
    topics: tuple[Topic, ...] = ()
    forbidden: tuple[Forbidden, ...] = ()
    synonyms: tuple[Synonyms, ...] = ()
    limits: SupportLimits = SupportLimits()
    cost: Cost = Cost()

    def persona_in(self, language: str | None) -> Persona:
        """The persona of a language, or the first one that there is."""
        return next((p for key, p in self.persona.items() if key == language), next(iter(self.persona.values())))

    def topic_of(self, text: str) -> Topic | None:
        """The topic that a message belongs to. One that must be handed over goes before one that is declined."""
        found = [topic for topic in self.topics if first_match(topic.phrases, plain(text))]
        return min(found, key=lambda topic: topic.do != "hand_over", default=None)

    def forbidden_in(self, answer: str) -> str | None:
        """Why an answer may not be given; None: it may."""
        text = plain(answer)
        return next((rule.why for rule in self.forbidden if first_match(rule.phrases, text)), None)


def load_rules(path: Path) -> Rules:
    """Read a rules file."""
    return load_recipe(Rules, path)
