"""The loop of `ayllu chat`: read a message or a command, answer, again. Answers go to stdout, all else to stderr."""

import difflib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ayllu.cli.conversation import Content, Conversation
from ayllu.cli.output import write_text
from ayllu.cli.sampling import stats_line
from ayllu.config import validate
from ayllu.engine.parts import audio_part, image_part
from ayllu.errors import AylluError, ConfigError, ContextTooLong
from ayllu.log import say
from ayllu.model.params import SamplingParams

if TYPE_CHECKING:
    from ayllu.engine.llm import LLM
    from ayllu.engine.result import Result

Read = Callable[[str], str]                              # mark -> one line; EOFError at the end
FENCE = '"""'
CURE = "\n(/undo takes back the last exchange, /clear forgets all of them)"
SETTABLE = sorted(set(SamplingParams.model_fields) - {"n", "num_beams", "length_penalty", "early_stopping", "logprobs"})


class Leave(Exception):  # noqa: N818
    """The user is done."""


class Repl:
    """A conversation that goes on. `is_person`: errors are told and the loop goes on; else they end it."""

    def __init__(self, llm: "LLM", conversation: Conversation, is_person: bool) -> None:
        self.llm, self.conversation, self.is_person = llm, conversation, is_person
        self.last: Result | None = None
        self.shown: list[dict[str, Any]] = []            # images and sounds for the next message
        self.commands: dict[str, Callable[[str], None]] = {
            "help": self._help, "image": self._image, "audio": self._audio, "system": self._system, "set": self._set,
            "save": self._save, "load": self._load,
            "undo": self._undo, "retry": self._retry, "stats": self._stats, "clear": self._clear, "bye": self._bye}

    def run(self, read: Read) -> None:
        """Until Ctrl-D, the end of the input, or /bye."""
        while True:
            try:
                text, is_block = read_message(read)
                self._take(text.strip(), is_block)
            except EOFError:
                if self.shown and not self.is_person:    # a recording may be the question itself
                    self.ask("")
                return
            except Leave:
                return
            except KeyboardInterrupt:                    # at the prompt: the line is dropped, the program stays
                if not self.is_person:
                    raise
            except AylluError as error:
                if not self.is_person:
                    raise
                say(f"error: {error}" + CURE * isinstance(error, ContextTooLong))

    def _take(self, text: str, is_block: bool) -> None:
        if text.startswith("/") and not is_block:
            name, _, rest = text[1:].partition(" ")
            self._command(name)(rest.strip())
        elif text:
            self.ask(text)

    def show(self, part: dict[str, Any]) -> None:
        """An image or a sound for the next message; what is wrong with it is said now."""
        self.llm.chat_prompt([{"role": "user", "content": [part]}])
        self.shown.append(part)

    def ask(self, text: str) -> None:
        """A message, with what was shown for it."""
        shown, self.shown = self.shown, []
        self.answer([*shown, {"type": "text", "text": text}] if shown else text)

    def answer(self, text: Content, drop: tuple[str, ...] = ()) -> None:
        """Ask the model and show its answer as it comes; Ctrl-C ends the answer, which stays as far as it came."""
        options = {key: value for key, value in self.conversation.options.items() if key not in drop}
        stream = self.llm.stream_chat(self.conversation.messages(text), **options)
        try:
            for piece in stream:
                write_text(piece)
        except KeyboardInterrupt:
            stream.close()
            if not self.is_person:
                raise
        write_text("\n")
        if stream.result is None:                        # stopped before the first token
            return
        self.last = stream.result
        self.conversation.add(text, stream.result.text)
        if stream.result.finish_reason == "cancelled":
            say("(stopped)")
        if stream.result.finish_reason == "length":
            say(f"(cut after {len(stream.result.ids)} tokens: /set max_tokens N allows more, as far as the context of "
                f"{self.llm.config.max_context} goes)")

    def _command(self, name: str) -> Callable[[str], None]:
        name = {"exit": "bye", "quit": "bye", "?": "help"}.get(name, name)
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, n=1)
            raise ConfigError(f"no command /{name}; " + (f"did you mean /{near[0]}?" if near else "/help lists them"))
        return self.commands[name]

    def _help(self, rest: str) -> None:
        """/help: this list"""
        say("\n".join(f"  {(command.__doc__ or '').strip()}" for command in self.commands.values())
            + f"\n  {FENCE} begins and ends a message of several lines; Ctrl-C stops an answer, Ctrl-D leaves")

    def _system(self, rest: str) -> None:
        """/system [TEXT]: show or set what the model should be and do; "/system none" takes it away"""
        if rest:
            self.conversation.system = None if rest == "none" else rest
        say(f"system: {self.conversation.system or '(none)'}")

    def _image(self, rest: str) -> None:
        """/image FILE: show a picture with the next message"""
        self.show(image_part(_needed(rest, "image")))
        say("shown with your next message")

    def _audio(self, rest: str) -> None:
        """/audio FILE: play a recording with the next message"""
        self.show(audio_part(_needed(rest, "audio")))
        say("played with your next message")

    def _set(self, rest: str) -> None:
        """/set [NAME [VALUE]]: show or change how answers are sampled; without VALUE back to the default"""
        name, _, value = rest.partition(" ")
        if not name:
            say("\n".join(f"  {key} = {value!r}" for key, value in self.conversation.options.items())
                or f"  nothing is set; there are: {', '.join(SETTABLE)}")
            return
        if name not in SETTABLE:
            near = difflib.get_close_matches(name, SETTABLE, n=1)
            raise ConfigError(f"no setting {name!r}; " + (f"did you mean {near[0]!r}?" if near else
                                                          f"there are: {', '.join(SETTABLE)}"))
        options = {key: old for key, old in self.conversation.options.items() if key != name}
        if value.strip():
            options[name] = _parse(name, value.strip())
        validate(SamplingParams, options, where="/set")
        self.conversation.options = options
        say(f"  {name} = {options[name]!r}" if name in options else f"  {name} is back at its default")

    def _save(self, rest: str) -> None:
        """/save NAME: keep the conversation, under a name or at a path that ends in .json"""
        say(f"saved to {self.conversation.save(_needed(rest, 'save'))}")

    def _load(self, rest: str) -> None:
        """/load NAME: go on with a conversation that was kept"""
        loaded = Conversation.load(_needed(rest, "load"))
        validate(SamplingParams, loaded.options, where=f"the settings in {rest}")
        if loaded.model != self.conversation.model:
            say(f"it was held with {loaded.model}, and goes on with {self.conversation.model}")
        loaded.model = self.conversation.model
        self.conversation, self.last = loaded, None
        say(f"loaded: {len(loaded.turns) // 2} exchanges")

    def _undo(self, rest: str) -> None:
        """/undo: take back the last question and its answer"""
        say("nothing to take back" if self.conversation.undo() is None else "taken back")

    def _retry(self, rest: str) -> None:
        """/retry: ask the last question again; a seed that is set doesn't count this once"""
        if not self.conversation.turns:
            say("nothing was asked yet")
            return
        turns = list(self.conversation.turns)
        question = self.conversation.undo() or ""
        try:
            self.answer(question, drop=("seed",))
        finally:
            if len(self.conversation.turns) < len(turns):    # no new answer came: the old one stays
                self.conversation.turns = turns

    def _stats(self, rest: str) -> None:
        """/stats: tokens, speed and memory of the last answer"""
        say(stats_line([self.last], self.llm) + f" · context {self.last.prompt_tokens + len(self.last.ids)} of "
            f"{self.llm.config.max_context} tokens" if self.last else "no answer yet")

    def _clear(self, rest: str) -> None:
        """/clear: forget the conversation, keep system text and settings"""
        self.conversation.turns, self.last = [], None
        say("cleared")

    def _bye(self, rest: str) -> None:
        """/bye: leave"""
        raise Leave


def read_message(read: Read) -> tuple[str, bool]:
    """One line, or all lines between two fences; tells whether it was fenced, since a fenced slash is no command."""
    line = read(">>> ")
    if not line.lstrip().startswith(FENCE):
        return line, False
    block = line.lstrip().removeprefix(FENCE)
    while FENCE not in block:
        try:
            block += "\n" + read("... ")
        except EOFError:                                 # the input ended within the block: it is the message
            return block, True
    return block[:block.index(FENCE)], True


def _parse(name: str, text: str) -> object:
    if name == "stop":
        return (text.encode().decode("unicode_escape") if "\\" in text and text.isascii() else text,)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _needed(rest: str, command: str) -> str:
    if not rest:
        raise ConfigError(f"/{command} needs a name: /{command} holiday")
    return rest
