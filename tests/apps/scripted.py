"""A `Speaker` that says what it is told: applications are tested without a model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ayllu.apps.speaker import Answer
from ayllu.engine.dialogue import Message
from ayllu.errors import ContextTooLong

Says = Callable[[Sequence[Message]], str]


class ScriptedSpeech(Iterator[str]):
    """A word at a time."""

    def __init__(self, text: str, n_prompt: int) -> None:
        self._pieces = [text[i:i + 4] for i in range(0, len(text), 4)]
        self._said, self._n_prompt = "", n_prompt
        self.answer: Answer | None = None

    def __next__(self) -> str:
        if not self._pieces:
            self.close()
            raise StopIteration
        self._said += self._pieces[0]
        return self._pieces.pop(0)

    def close(self) -> None:
        finish = "length" if self._pieces else "stop"
        self.answer = self.answer or Answer(self._said, finish, self._n_prompt, len(self._said), -0.5)
        self._pieces = []


class ScriptedSpeaker:
    """Answers by `says`; a token is a character, a text's vector counts its bytes. `asked` keeps every call."""

    sees = hears = True
    ear_s = 5.0

    def __init__(self, says: Says = lambda messages: "Yes.", context: int = 2000, is_small: bool = False,
                 name: str = "scripted") -> None:
        self.says, self.context, self.is_small, self.name = says, context, is_small, name
        self.asked: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []

    def stream(self, messages: Sequence[Message], **options: Any) -> ScriptedSpeech:
        self.asked.append(([dict(m) for m in messages], options))
        room = self.room(messages)
        if room < 1:
            raise ContextTooLong(f"no room in a context of {self.context}")
        return ScriptedSpeech(self.says(messages)[:min(room, options.get("max_tokens") or room)],
                              self.context - room)

    def answers(self, prompts: Sequence[Sequence[Message]], **options: Any) -> list[Answer]:
        found = []
        for messages in prompts:
            speech = self.stream(messages, **options)
            for _ in speech:
                pass
            assert speech.answer is not None
            found.append(speech.answer)
        return found

    def room(self, messages: Sequence[Message]) -> int:
        return max(0, self.context - sum(len(m["content"]) for m in messages))

    def count(self, text: str) -> int:
        return len(text)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([np.bincount(np.frombuffer(t.encode(), np.uint8), minlength=256) for t in texts])
        rows = counts.reshape(len(texts), 256).astype(np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def logprobs(self, messages: Sequence[Message], answer: str) -> list[float]:
        return [-0.5] * len(answer)
