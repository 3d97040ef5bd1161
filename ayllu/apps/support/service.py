"""Customer service over a business's pages: each message is answered from them, declined, or given to a person.

    taken by a person -> they answer        small talk -> a fixed sentence
    a topic of the rules -> a person, or declined              the pages are sure -> their own words, cited
    else -> "I don't know": offered to a person; after some in a row given to one

The default answer is extractive: the section itself, so nothing can be made up. A model that is large enough may put
it in its own words; what it says must stand in the sections, or theirs are given instead (wording.py).
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ayllu.apps.collection import Collection
from ayllu.apps.speaker import Speaker
from ayllu.apps.support.desk import Conversation, Desk, Message
from ayllu.apps.support.match import Match
from ayllu.apps.support.pages import RULES, Pages
from ayllu.apps.support.phrases import language_of
from ayllu.apps.support.rules import Language, Rules, Topic, load_rules
from ayllu.apps.support.talk import accepts, follows, small_talk, when_people_answer
from ayllu.apps.support.wording import Citation, Worded, cite, in_own_words, shown, summary_of
from ayllu.errors import DataError, RequestError
from ayllu.principal import Principal

N_CITED, ALL = 3, 10**6                                  # sections that a model reads; all that share a word
CLOSE = 0.85                                             # of the best score: what is offered as related


@dataclass
class Draft:
    """An answer before it is written down."""

    kind: str
    text: str
    confidence: float | None = None
    citations: tuple[Citation, ...] = ()
    related: tuple[str, ...] = ()                        # headings that may be meant, too
    topic: str = ""
    ticket: int | None = None
    tokens: tuple[int, int] = (0, 0)                     # read and written by a model
    why: str = ""                                        # for the operator

    def facts(self, ms: float) -> dict[str, Any]:
        """What is kept beside the text."""
        return {"citations": [vars(c) for c in self.citations], "confidence": self.confidence, "topic": self.topic,
                "related": list(self.related), "ticket": self.ticket, "ms": round(ms, 2), "why": self.why,
                "prompt_tokens": self.tokens[0], "n_tokens": self.tokens[1]}


@dataclass
class Support:
    """One business's customer service. Threads may share it."""

    rules: Rules
    pages: Pages
    desk: Desk
    speaker: Speaker | None = None                       # puts answers in its own words, where it is no small one
    clock: Callable[[], float] = field(default=time.time)

    def renewed(self, folder: Path, rules: Rules) -> "Support":
        """The same desk over pages and rules that have changed."""
        return replace(self, rules=rules, pages=Pages.read(folder, self.pages.collection, rules))

    def close(self) -> None:
        """Close the file; conversations stay."""
        self.pages.collection.close()

    def begin(self, who: Principal, customer: str = "", language: str | None = None) -> tuple[Conversation, str]:
        """A new conversation, and its secret; old ones that are past their time are deleted on the way."""
        self.desk.expire(self.rules.keep_days)
        known = language if language in self.rules.persona else next(iter(self.rules.persona))
        return self.desk.begin(who, customer, known)

    def say(self, who: Principal, number: int, text: str) -> list[Message]:
        """A customer's message as it was kept, and the answer to it; none while a person has the conversation."""
        self.check(text)
        limits = self.rules.limits
        conversation = self.desk.conversation(who, number)
        if self.desk.n_messages(number) >= limits.conversation_messages:
            raise RequestError(f"this conversation has {limits.conversation_messages} messages, which is the limit: "
                               "begin a new one")
        begun = time.perf_counter()
        before = self.desk.messages(who, number, last=limits.remembered_messages) if limits.remembered_messages else []
        said = self.desk.add(number, "customer", "text", text.strip())
        if conversation.state == "taken":
            return [said]
        draft = self._draft(text.strip(), conversation, before)
        if draft.kind == "hand_over":
            summary = summary_of(draft.topic, [*before, said], self._language(text, conversation))
            draft.ticket = self.desk.ticket(who, number, draft.topic, summary).number
        ms = 1000 * (time.perf_counter() - begun)
        return [said, self.desk.add(number, "assistant", draft.kind, draft.text, draft.facts(ms))]

    def check(self, text: str) -> None:
        """Refuse a message that can't be answered."""
        most = self.rules.limits.message_characters
        if not text.strip():
            raise RequestError("the message is empty: write something")
        if len(text) > most:
            raise RequestError(f"the message has {len(text)} characters, at most {most} are read: shorten it")

    def answer(self, text: str, language: str | None = None) -> Draft:
        """One question by itself: nothing is kept."""
        self.check(text)
        now = self.clock()
        found = language_of(text) or language or next(iter(self.rules.persona))
        return self._draft(text, Conversation(0, "", "", "", found, "open", None, None, now, now), [])

    def _draft(self, text: str, conversation: Conversation, before: list[Message]) -> Draft:
        language = self._language(text, conversation)
        persona = self.rules.persona_in(language)
        last = next((m for m in reversed(before) if m.role == "assistant"), None)
        is_offered = last is not None and last.kind == "unknown"
        if is_offered and accepts(text):
            return self._hand_over("unanswered", language)
        small = small_talk(text)
        if small == "no":
            return Draft(small, persona.thanks if is_offered else persona.goodbye)
        if small and small != "yes":
            return Draft(small, getattr(persona, small))
        if topic := self.rules.topic_of(text):
            return self._by_rule(topic, language)
        best = self._matches(text, language, before)
        if best and best[0].confidence >= self.rules.min_confidence:
            return self._from_pages(text, best, language)
        return self._unknown(language, before, best[0].confidence if best else 0.0)

    def _language(self, text: str, conversation: Conversation) -> str:
        found = language_of(text)
        return found if found in self.rules.persona else conversation.language

    def _matches(self, text: str, language: str, before: list[Message]) -> list[Match]:
        """Sections for a question; where it speaks of what came before, those with its words that fit all best."""
        alone = self.pages.best(text, language, ALL)
        is_sure = bool(alone) and alone[0].confidence >= self.rules.min_confidence
        asked = _asked(before)
        if not asked or (is_sure and not follows(text)):
            return alone[:N_CITED]
        about = {match.section for match in alone}
        both = [m for m in self.pages.best("\n".join([*asked, text]), language, ALL) if m.section in about]
        return (both or alone)[:N_CITED]

    def _by_rule(self, topic: Topic, language: str) -> Draft:
        own = topic.zh if language == "zh" else topic.en
        if topic.do == "decline":
            return Draft("decline", own or self.rules.persona_in(language).unknown, topic=topic.name)
        return self._hand_over(topic.name, language, own)

    def _hand_over(self, topic: str, language: str, first: str = "", why: str = "") -> Draft:
        now = datetime.fromtimestamp(self.clock(), UTC)
        says = first or self.rules.persona_in(language).handed_over
        space = "" if language == "zh" else " "
        return Draft("hand_over", says + space + when_people_answer(self.rules.hours, now, language), topic=topic,
                     why=why)

    def _from_pages(self, text: str, best: list[Match], language: str) -> Draft:
        sections = [match.section for match in best if match.confidence >= self.rules.min_confidence]
        cited = [cite(section, text, self.pages.matcher) for section in sections]
        worded = Worded(shown(cited[0]), (0,))
        if self.speaker is not None and not self.speaker.is_small:
            worded = in_own_words(self.speaker, self.rules.persona_in(language), text, cited, self.pages.matcher) \
                or worded
        if why := self.rules.forbidden_in(worded.text):
            return self._hand_over("forbidden", language, why=why)
        related = tuple(match.section.heading for match in best[1:]
                        if match.section.heading and match.score >= CLOSE * best[0].score)
        return Draft("answer", worded.text, round(best[0].confidence, 3), tuple(cited[i] for i in worded.used), related,
                     tokens=worded.tokens)

    def _unknown(self, language: str, before: list[Message], confidence: float) -> Draft:
        answers = [m.kind for m in reversed(before) if m.role == "assistant"]
        row = next((i for i, kind in enumerate(answers) if kind != "unknown"), len(answers))
        if row + 1 >= self.rules.after_unknown and row:
            return self._hand_over("unanswered", language)
        return Draft("unknown", self.rules.persona_in(language).unknown, round(confidence, 3))


def _asked(before: list[Message]) -> list[str]:
    """The customer's last question, with those that it speaks of itself."""
    asked: list[str] = []
    for message in reversed(before):
        if message.role == "customer" and not small_talk(message.text):
            asked.insert(0, message.text)
            if not follows(message.text):
                break
    return asked


def language_in(rules: Rules, tag: str | None) -> Language:
    """The language of the rules that fits a tag such as zh-CN, or their first one."""
    return next((key for key in rules.persona if tag and tag.lower().startswith(key)), next(iter(rules.persona)))


def place_of(folder: Path, below: Path) -> Path:
    """The file that a business's collection and conversations are kept in."""
    home = folder.resolve()
    return below / f"support-{home.name}-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}.sqlite"


def open_support(folder: Path, database: Path, rules: Path | None = None, speaker: Speaker | None = None) -> Support:
    """The customer service of a folder of pages, with its rules beside them or in another file."""
    path = rules or folder / RULES
    if not path.is_file():
        raise DataError(f"no rules at {path}: `ayllu support init FOLDER` makes a folder of pages and rules to begin "
                        "with; --rules names a file elsewhere")
    read = load_rules(path)
    collection = Collection(database)
    try:
        return Support(read, Pages.read(folder, collection, read), Desk(collection.store), speaker)
    except BaseException:
        collection.close()
        raise
