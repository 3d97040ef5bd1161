"""From a brief to a text: an outline first, then section by section, each within the context and shown as it comes.

A model that gives no usable outline gets a plain one. A section that stays short is taken up again where it ends; one
that goes round in circles is ended, and one with a forbidden word is written once more. What remains wrong is said by
the checks, not hidden.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from ayllu.apps.speaker import Speaker
from ayllu.apps.write import words
from ayllu.apps.write.brief import Brief
from ayllu.apps.write.measure import length, units
from ayllu.errors import ContextTooLong

ROUNDS = 3                                               # of one section, until it has SHORT of its length
SHORT = 0.7
ENOUGH = 1.2                                             # of it, where the next sentence's end is the end
MOST = 1.5                                               # of it, where anything is
LOOK = 40                                                # characters between two looks at the length
ROUND = 120                                              # characters that only say their first third again and again
TRIES = 2                                                # of a section with a forbidden word
TOKENS_PER_UNIT = 4                                      # room that is asked for: small vocabularies cut words finely
_BULLET = re.compile(r"^\s*(?:[-*•#]+|\(?\d{1,2}[.)、）:]|[一二三四五六七八九十]{1,3}、)\s*")
TAIL = 600                                               # characters of what stands before, where there is room


@dataclass(frozen=True)
class Event:
    """"outline": the headings, in `outline`. "section": section `index` begins (again, if it was there). "text": more
    of it. "done": all of the text, in Markdown."""

    kind: Literal["outline", "section", "text", "done"]
    index: int = 0
    text: str = ""
    outline: tuple[str, ...] = ()


@dataclass
class Draft:
    """A text as it grows: a title and sections with their headings."""

    title: str
    outline: Sequence[str]
    texts: list[str] = field(default_factory=list)

    @property
    def markdown(self) -> str:
        """Headings stand where there is more than one section."""
        parts = [f"# {self.title}"]
        for heading, text in zip(self.outline, self.texts, strict=False):
            parts += [f"## {heading}"] * (len(self.outline) > 1) + [text.strip()] * bool(text.strip())
        return "\n\n".join(parts) + "\n"


def compose(brief: Brief, speaker: Speaker, *, seed: int | None = None, outline: Sequence[str] = (),
            title: str = "", temperature: float = 0.8) -> Generator[Event, None, None]:
    """The text of a brief as it comes. `outline`: headings to use instead of the model's."""
    headings = tuple(outline) or plan(brief, speaker, seed)
    draft = Draft(title or brief.topic, headings)
    yield Event("outline", outline=headings)
    shares = share_points(brief.points, headings)
    for index, heading in enumerate(headings):
        for attempt in range(TRIES):
            yield Event("section", index, heading)
            if len(draft.texts) > index:
                draft.texts.pop()
            draft.texts.append("")
            for piece in _section(brief, speaker, draft, index, shares[index], _plus(seed, 100 * index + 10 * attempt),
                                  temperature):
                draft.texts[index] += piece
                yield Event("text", index, piece)
            if not any(word.casefold() in draft.texts[index].casefold() for word in brief.forbidden):
                break
    yield Event("done", text=draft.markdown)


def write(brief: Brief, speaker: Speaker, *, seed: int | None = None, outline: Sequence[str] = ()) -> str:
    """The whole text of a brief, in Markdown."""
    *_, last = compose(brief, speaker, seed=seed, outline=outline)
    return last.text


def plan(brief: Brief, speaker: Speaker, seed: int | None = None) -> tuple[str, ...]:
    """Headings of the sections: the model's, filled up with plain ones where it gives too few."""
    n, own = brief.n_sections, words.WORDS[brief.tongue]
    if n == 1:
        return (brief.topic,)
    say = own["says"]["outline"].format(kind=own["kinds"][brief.kind], n=n)
    messages = words.told(brief.tongue, say, words.facts_of(brief, brief.points))
    answer = speaker.answers([messages], max_tokens=min(40 * n, max(1, speaker.room(messages))), temperature=0.7,
                             seed=seed)[0]
    plain = own["plan"][brief.kind]
    numbered = [own["part"].format(n=i + 1) for i in range(n)]
    good = [one for one in headings_in(answer.text, brief) if answer.finish == "stop"]
    if len(good) < n / 2:                                # a stray line is no outline
        good = []
    return tuple(dict.fromkeys([*good, *(plain if n <= len(plain) else []), *numbered]))[:n]


def headings_in(text: str, brief: Brief) -> list[str]:
    """Lines that may be headings: short, in the language of the brief, without bullets, numbers or forbidden words."""
    found = []
    for line in text.splitlines():
        bare = _BULLET.sub("", line).strip(" *#:：\t")
        if line.rstrip().endswith((":", "：")) and not _BULLET.match(line):    # "Here are four headings:"
            continue
        n_units = length(bare)
        if not 1 <= n_units <= (12 if brief.tongue == "en" else 24) or bare[-1:] in "。！？.!?,，;；":
            continue
        if any(word.casefold() in bare.casefold() for word in brief.forbidden):
            continue
        found.append(bare)
    return list(dict.fromkeys(found))


def share_points(points: Sequence[str], headings: Sequence[str]) -> list[list[str]]:
    """Each point goes to the section whose heading shares most of its words, else to the one with the fewest."""
    shares: list[list[str]] = [[] for _ in headings]
    bags = [{unit.text for unit in units(heading)} for heading in headings]
    for point in points:
        wanted = {unit.text for unit in units(point)}
        best = max(range(len(headings)), key=lambda i: (len(wanted & bags[i]), -len(shares[i]), -i))
        shares[best].append(point)
    return shares


def _section(brief: Brief, speaker: Speaker, draft: Draft, index: int, points: Sequence[str], seed: int | None,
             temperature: float) -> Generator[str, None, None]:
    target = max(20, brief.target // len(draft.outline))
    written = ""
    for turn in range(ROUNDS):
        missing = target - length(written)
        messages, room = _fitted(brief, speaker, draft, index, points, missing, written)
        speech = speaker.stream(messages, max_tokens=min(room, missing * TOKENS_PER_UNIT), temperature=temperature,
                                seed=_plus(seed, turn))
        added, seen = "", 0
        with closing(speech):                            # it might go on for ever, or nobody reads on
            for piece in speech:
                if written and not added:                # taken up again: in a new paragraph
                    yield "\n\n"
                added += piece
                yield piece
                ends = re.search(r"[.!?。！？\n]\W*$", piece) is not None
                if ends or len(added) - seen > LOOK:
                    seen = len(added)
                    if goes_round(added):                # and would go on so when taken up again
                        return
                    if length(added) >= (ENOUGH if ends else MOST) * missing:
                        break
        is_new = added.strip() not in written            # a model that only says the same again has no more to say
        written += added
        if not is_new or length(written) >= SHORT * target:
            return


def goes_round(text: str) -> bool:
    """Whether the end of a text is one short piece over and over, as models write that take the likeliest token."""
    end = text[-ROUND:]
    return len(end) == ROUND and any(end[n:] == end[:-n] for n in range(1, ROUND // 3 + 1))


def _fitted(brief: Brief, speaker: Speaker, draft: Draft, index: int, points: Sequence[str], missing: int,
            written: str) -> tuple[list[dict[str, str]], int]:
    """The prompt with as much of what stands before as leaves room for the answer, and that room in tokens."""
    language, heading = brief.tongue, draft.outline[index]
    name = "more" if written else "section" if len(draft.outline) > 1 else "whole"
    own = words.WORDS[language]
    say = own["says"][name].format(kind=own["kinds"][brief.kind], heading=heading, length=max(20, missing),
                                   unit=own["unit"])
    before = written or "\n\n".join(draft.texts[:index])
    mark = " / "
    room = 0
    for tail, with_outline in ((TAIL, True), (TAIL // 4, True), (TAIL // 4, False), (40, False), (0, False)):
        facts = [*words.facts_of(brief, points), ("outline_is", mark.join(draft.outline) if with_outline and
                                                  len(draft.outline) > 1 else ""),
                 ("before", before[-tail:] if tail else "")]
        messages = words.told(language, say, facts)
        room = speaker.room(messages)
        if room >= min(missing * TOKENS_PER_UNIT, speaker.context // 2):
            return messages, room
    if room < 16:
        raise ContextTooLong(f"the brief leaves {room} tokens of the model's {speaker.context} for its text: give "
                             "fewer points and forbidden words, or a model with a longer context")
    return messages, room


def _plus(seed: int | None, n: int) -> int | None:
    return None if seed is None else seed + n
