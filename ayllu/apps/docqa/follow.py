"""A question that only makes sense after the conversation, made to stand alone, so that it can be searched for."""

import re
from collections.abc import Sequence

from ayllu.apps.docqa.defining import term_of
from ayllu.apps.docqa.overlap import telling
from ayllu.apps.speaker import Speaker
from ayllu.engine.dialogue import Message

_LEANS = re.compile(
    r"^(and|but|so|what about|how about)\b|^(那么?|那麼|还有|還有|然后|另外)"
    r"|\b(it|its|they|them|their|he|him|his|she|her|that|this|these|those|ones?|there|then|same|else|instead)\b"
    r"|[它他她][们們]?|这[个些样]?|這[個些樣]?|那[个些]|那[個些]|其中|上面|刚才|呢[？?]?$", re.IGNORECASE)
_ASK = ("Rewrite the last question so that it can be understood without the conversation: put names in the place of "
        "words such as it or that. Keep its language. Write the question only.")


def standalone(question: str, history: Sequence[Message], speaker: Speaker | None = None) -> str:
    """The question itself where it stands alone. A large model rewrites it; else the words of the question before it
    are put in front, which is as good for a search."""
    before = [str(m["content"]) for m in history if m["role"] == "user"]
    if not before or not leans(question):
        return question
    if speaker is not None and not speaker.is_small:
        written = _rewritten(question, history, speaker)
        if written:
            return written
    last = standalone(before[-1], [m for m in history if m["role"] == "user"][:-1])
    return f"{last} {question}"


def leans(question: str) -> bool:
    """Whether a question points back, or is too short to search for; one for a term stands alone."""
    is_short = len(telling(question)) < 2 and not term_of(question).needs_definition
    return is_short or bool(_LEANS.search(question.strip()))


def _rewritten(question: str, history: Sequence[Message], speaker: Speaker) -> str:
    """"" where the model made up words that nobody said: then it wandered off."""
    talk = "\n".join(f"{m['role']}: {str(m['content'])[:600]}" for m in history[-6:])
    messages = [{"role": "system", "content": _ASK}, {"role": "user", "content": f"{talk}\nuser: {question}"}]
    if speaker.room(messages) < 32:
        return ""
    answer = speaker.answers([messages], temperature=0.0, max_tokens=80)[0]
    text = answer.text.strip().splitlines()[0].strip(" \"“”") if answer.text.strip() else ""
    said = set(telling(talk)) | set(telling(question))
    new = telling(text)
    return text if answer.finish == "stop" and new and sum(w in said for w in new) >= 0.7 * len(new) else ""
