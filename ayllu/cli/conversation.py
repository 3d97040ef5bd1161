"""A conversation: what was said, under which settings; kept as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ayllu.errors import DataError
from ayllu.files import state_folder, write_json

Content = str | list[dict[str, Any]]                     # a text, or parts with images and sounds (engine/parts.py)


@dataclass
class Conversation:
    """Turns of user and assistant in alternation, a system text before them, and how answers are sampled."""

    model: str
    system: str | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def messages(self, text: Content | None = None) -> list[dict[str, Any]]:
        """All messages, with one more of the user."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        last = [] if text is None else [{"role": "user", "content": text}]
        return [*first, *self.turns, *last]

    def add(self, question: Content, answer: str) -> None:
        """One exchange."""
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def undo(self) -> Content | None:
        """Take back the last exchange; gives its question."""
        if not self.turns:
            return None
        question = self.turns[-2]["content"]
        del self.turns[-2:]
        return question

    def save(self, name: str) -> Path:
        """Write it under a name (in the user's state folder) or a path."""
        path = place(name)
        write_json(path, asdict(self))
        path.chmod(0o600)                                # what people write is theirs alone
        return path

    @classmethod
    def load(cls, name: str) -> "Conversation":
        """Read what `save` wrote; anything else is refused."""
        path = place(name)
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            there = sorted(p.stem for p in path.parent.glob("*.json"))
            raise DataError(f"no conversation at {path}; there are: {', '.join(there) or 'none'}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} can't be read as a conversation: {error}") from error
        if not _is_conversation(table):
            raise DataError(f"{path} is JSON but no conversation: expected model, system, turns and options, with "
                            "turns of user and assistant in alternation")
        return cls(**table)


def place(name: str) -> Path:
    """A name without a folder or suffix is kept in the state folder."""
    path = Path(name).expanduser()
    is_path = path.suffix == ".json" or path.parent != Path()
    return path if is_path else state_folder() / "chats" / f"{name}.json"


def _is_conversation(table: Any) -> bool:
    if not isinstance(table, dict) or set(table) != {"model", "system", "turns", "options"}:
        return False
    turns = table["turns"]
    roles = [turn.get("role") for turn in turns
             if isinstance(turn, dict) and isinstance(turn.get("content"), str | list)]
    return (isinstance(table["model"], str) and isinstance(table["system"], str | None)
            and isinstance(table["options"], dict) and len(turns) % 2 == 0
            and roles == ["user", "assistant"] * (len(turns) // 2))
