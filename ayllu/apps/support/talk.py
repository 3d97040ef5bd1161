"""What needs no pages: greetings, thanks, a yes or no to an offer, and when people are there."""

import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Literal

from ayllu.apps.support.hours import Hours
from ayllu.apps.support.phrases import plain

Small = Literal["greeting", "thanks", "goodbye", "no", "yes"]
WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
SMALL: dict[Small, str] = WORDS["small"]
MARKS = re.compile(r"[\W_]+")
FOLLOWS = re.compile(r"(?<!\w)(it|that|this|they|them|those|these|one|there|then)(?!\w)|"
                     r"^(and|what about|how about|also)(?!\w)|它|这个|那个|那种|^那|^还有|^另外|呢[？?]?$")


def small_talk(text: str) -> Small | None:
    """What kind of small talk a whole message is."""
    return next((kind for kind in SMALL if _is(kind, text)), None)


def accepts(text: str) -> bool:
    """Whether a whole message takes an offer; "ok, thanks" does so, too."""
    return _is("yes", text)


def _is(kind: Small, text: str) -> bool:
    return bool(re.fullmatch(SMALL[kind], MARKS.sub(" ", plain(text)).strip()))


def follows(text: str) -> bool:
    """Whether a question speaks of what was said before."""
    return bool(FOLLOWS.search(plain(text).strip()))


def when_people_answer(hours: Hours, now: datetime, language: str) -> str:
    """One sentence."""
    opening = hours.opens_at(now)
    if opening is None:
        return "人工客服会尽快回复。" if language == "zh" else "A person will answer as soon as possible."
    if opening is now:
        here = "People are here now and will answer in this conversation."
        return "人工客服在线，会在这里回复您。" if language == "zh" else here
    at = opening.astimezone(hours.zone)
    if language == "zh":
        day = f"{at.month}月{at.day}日星期{'一二三四五六日'[at.weekday()]} {at:%H:%M}"
        return f"现在没有人工客服，{day}（{hours.timezone}）起有人回复。"
    return f"Nobody is here now; people are back on {at:%A, %d %B, at %H:%M} ({hours.timezone})."
