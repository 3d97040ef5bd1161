"""What needs no pages: greetings, thanks, a yes to an offer, and when people are there."""

import re
from datetime import datetime
from typing import Literal

from ayllu.apps.support.hours import Hours
from ayllu.apps.support.phrases import plain

Small = Literal["greeting", "thanks", "goodbye", "yes"]
SMALL: dict[Small, str] = {                              # the whole message, without its marks
    "greeting": r"(hi|hello|hey|good (morning|afternoon|evening|day)|greetings)( there| again| everyone| lumi)?|"
                r"(你|您|大家)好[啊呀]?|哈喽|嗨|早上好|早安|早|下午好|晚上好|在吗|有人吗",
    "thanks": r"(ok |okay |great )?(thank you|thanks|thx|many thanks|cheers)( so much| very much| a lot| again)?|"
              r"(好的?)?(谢谢|多谢|感谢|谢了)(你|您|啦|了)?|非常感谢|太好了谢谢",
    "goodbye": r"(ok )?(bye|goodbye|good bye|bye bye|see you|ciao|good night)|再见|拜拜|回头见|晚安",
    "yes": r"(yes|yeah|yep|sure|ok|okay|please do|yes please|please|go ahead|of course|do it)( please)?|"
           r"是的?|好的?|可以|要|嗯|行|好啊|需要|麻烦了?|请转|请帮我转",
}
MARKS = re.compile(r"[\W_]+")
FOLLOWS = re.compile(r"(?<!\w)(it|that|this|they|them|those|these|one|there|then)(?!\w)|"
                     r"^(and|what about|how about|also)(?!\w)|它|这个|那个|那种|^那|^还有|^另外|呢[？?]?$")
DAYS_ZH = "一二三四五六日"


def small_talk(text: str) -> Small | None:
    """What kind of small talk a whole message is."""
    said = MARKS.sub(" ", plain(text)).strip()
    return next((kind for kind, pattern in SMALL.items() if re.fullmatch(pattern, said)), None)


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
        day = f"{at.month}月{at.day}日星期{DAYS_ZH[at.weekday()]} {at:%H:%M}"
        return f"现在没有人工客服，{day}（{hours.timezone}）起有人回复。"
    return f"Nobody is here now; people are back on {at:%A, %d %B, at %H:%M} ({hours.timezone})."
