"""A text, or a selection of one, written anew: piece by piece where it is longer than the context."""

from collections.abc import Generator
from contextlib import closing
from typing import Literal

from ayllu.apps.speaker import Speaker
from ayllu.apps.write import words
from ayllu.apps.write.measure import language_of, pieces
from ayllu.errors import ContextTooLong, RequestError

Action = Literal["rewrite", "shorten", "expand", "continue", "tone", "titles"]
GROWTH = {"rewrite": 1.5, "shorten": 0.8, "expand": 2.5, "tone": 1.5}      # tokens of an answer to those of its piece
CONTINUED = 400                                          # tokens
N_TITLES = 5


def revise(text: str, action: Action, speaker: Speaker, *, tone: str = "", wish: str = "",
           seed: int | None = None) -> Generator[str, None, None]:
    """The new text as it comes. For "continue" only what is added; for "titles" lines."""
    if not text.strip():
        raise RequestError("there is no text to work on: select some, or write some first")
    if action == "tone" and not tone.strip():
        raise RequestError("tone: say which tone is wanted, such as friendly or formal")
    language = language_of(text)
    say = words.WORDS[language]["actions"][action].format(tone=tone.strip(), n=N_TITLES)
    if action in ("continue", "titles"):
        place = -1 if action == "continue" else 0        # the end, or the beginning, as much as leaves room
        parts = [_fit(text, say, wish, speaker, 1.0)[place]]
    else:
        parts = _fit(text, say, wish, speaker, GROWTH[action])
    for number, part in enumerate(parts):
        messages = words.told(language, say, [("wish", wish), ("text", part)])
        most = int(speaker.count(part) * GROWTH[action]) + 16 if action in GROWTH else CONTINUED
        if number:
            yield "\n\n"
        with closing(speaker.stream(messages, max_tokens=min(most, speaker.room(messages)), seed=seed)) as speech:
            yield from speech


def _fit(text: str, say: str, wish: str, speaker: Speaker, growth: float) -> list[str]:
    """Pieces that fit with their answers: a piece and `growth` times its tokens."""
    language = language_of(text)
    room = speaker.room(words.told(language, say, [("wish", wish), ("text", "")])) - 16
    if room < 32:
        raise ContextTooLong(f"the wish leaves {max(0, room)} tokens of the model's {speaker.context} for the text: "
                             "say it more briefly")
    most = len(text)
    while True:
        found = pieces(text, most)
        if most <= 8 or all(speaker.count(piece) * (1 + growth) + 16 <= room for piece in found):
            return [piece.strip() for piece in found if piece.strip()]
        most = max(8, most // 2)
