"""Recordings as text: cut at quiet places into pieces that the ear takes, each of which the model is asked about.

    transcript = transcribe(speaker, Path("call.mp3").read_bytes(), "call.mp3")
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ayllu.apps.speaker import Answer, Speaker
from ayllu.engine.dialogue import Message
from ayllu.engine.parts import audio_bytes
from ayllu.errors import BadMedia, RequestError
from ayllu.media.sound import QUIET, RATE, Sound, SoundLimits, read_sound

ASK = "What is said?"
FRAME = RATE // 20                                       # samples of which the quietest is looked for: 50 ms
MOST_S = 120.0                                           # of a question; a recording of more is no question
CUT = "…"                                                # after words that go on
MOST_TOKENS = 224                                        # of one piece's text


@dataclass(frozen=True)
class Segment:
    """What was said from `start` to `end`, in seconds."""

    start: float
    end: float
    answer: Answer                                       # its text ends with CUT where it met its limit


@dataclass(frozen=True)
class Transcript:
    """A whole recording."""

    seconds: float
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(text for segment in self.segments if (text := segment.answer.text))


def transcribe(speaker: Speaker, data: bytes, name: str = "the recording", ask: str = ASK,
               temperature: float = 0.0, limits: SoundLimits | None = None) -> Transcript:
    """What is said in a file. BadMedia where it can't be read; silent pieces are passed over."""
    if not speaker.hears:
        raise RequestError(f"{speaker.name} hears nothing: give it senses with an ear (--senses FOLDER)")
    sound = read_sound(data, name, limits)
    pieces = [piece for piece in cuts(sound, speaker.ear_s) if np.abs(sound.samples[slice(*piece)]).max() >= QUIET]
    prompts: list[list[Message]] = [[{"role": "user", "content": [
        {**audio_bytes(_wav(sound.samples[slice(*piece)])), "where": name}, {"type": "text", "text": ask}]}]
        for piece in pieces]
    answers = speaker.answers(prompts, temperature=temperature, max_tokens=MOST_TOKENS)
    words = [replace(answer, text=answer.text.strip() + CUT * (answer.finish == "length")) for answer in answers]
    return Transcript(sound.seconds, tuple(Segment(begin / RATE, end / RATE, answer)
                                           for (begin, end), answer in zip(pieces, words, strict=True)))


def question_in(speaker: Speaker, data: bytes, name: str = "the recording") -> str:
    """What is asked in a recording; BadMedia where no word of it was made out."""
    if text := transcribe(speaker, data, name, limits=SoundLimits(seconds=MOST_S)).text:
        return text
    raise BadMedia(f"{name}: no words were made out: speak closer to the microphone, or write the question")


def cuts(sound: Sound, most_s: float) -> Iterator[tuple[int, int]]:
    """Pieces (begin, end) in samples, none longer than `most_s`, cut at the quietest moment of their second half; none
    is a scrap that no ear could take."""
    begin, n, most = 0, len(sound.samples), int(most_s * RATE)
    while n - begin > most:
        half = sound.samples[begin + most // 2:min(begin + most, n - most // 4)]
        frames = half[:len(half) // FRAME * FRAME].reshape(-1, FRAME)
        quietest = int(np.square(frames).sum(axis=1).argmin()) if len(frames) else 0
        end = begin + most // 2 + quietest * FRAME + (FRAME // 2 if len(frames) else 0)
        yield begin, end
        begin = end
    yield begin, n


def _wav(samples: np.ndarray) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="WAV", subtype="FLOAT")
    return out.getvalue()
