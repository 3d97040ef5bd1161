"""Recordings as text: cut at quiet places into pieces that the ear takes, each of which the model is asked about.

    transcript = transcribe(speaker, Path("call.mp3").read_bytes(), "call.mp3")
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ayllu.apps.speaker import Answer, Speaker
from ayllu.engine.dialogue import Message
from ayllu.engine.parts import audio_bytes
from ayllu.errors import RequestError
from ayllu.media.sound import QUIET, RATE, Sound, read_sound

ASK = "What is said?"
FRAME = RATE // 20                                       # samples of which the quietest is looked for: 50 ms
MOST_TOKENS = 224                                        # of one piece's text


@dataclass(frozen=True)
class Segment:
    """What was said from `start` to `end`, in seconds."""

    start: float
    end: float
    answer: Answer


@dataclass(frozen=True)
class Transcript:
    """A whole recording."""

    seconds: float
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(text for segment in self.segments if (text := segment.answer.text.strip()))


def transcribe(speaker: Speaker, data: bytes, name: str = "the recording", ask: str = ASK,
               temperature: float = 0.0) -> Transcript:
    """What is said in a file. BadMedia where it can't be read; silent pieces are passed over."""
    if not speaker.hears:
        raise RequestError(f"{speaker.name} hears nothing: give it senses with an ear (--senses FOLDER)")
    sound = read_sound(data, name)
    pieces = [piece for piece in cuts(sound, speaker.ear_s) if np.abs(sound.samples[slice(*piece)]).max() >= QUIET]
    prompts: list[list[Message]] = [[{"role": "user", "content": [
        {**audio_bytes(_wav(sound.samples[slice(*piece)])), "where": name}, {"type": "text", "text": ask}]}]
        for piece in pieces]
    answers = speaker.answers(prompts, temperature=temperature, max_tokens=MOST_TOKENS)
    return Transcript(sound.seconds, tuple(Segment(begin / RATE, end / RATE, answer)
                                           for (begin, end), answer in zip(pieces, answers, strict=True)))


def cuts(sound: Sound, most_s: float) -> Iterator[tuple[int, int]]:
    """Pieces (begin, end) in samples, none longer than `most_s`, cut at the quietest moment of their second half."""
    begin, n, most = 0, len(sound.samples), int(most_s * RATE)
    while n - begin > most:
        half = sound.samples[begin + most // 2:begin + most]
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
