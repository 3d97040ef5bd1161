"""`ayllu chat`: a conversation in the terminal, or line by line through a pipe."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ayllu.cli import sampling as flags
from ayllu.cli.conversation import Conversation
from ayllu.cli.output import Json, print_json
from ayllu.cli.repl import Read, Repl
from ayllu.engine.parts import audio_part, image_part
from ayllu.errors import ConfigError
from ayllu.files import state_folder
from ayllu.log import say


def chat(
    model: flags.Model = "ayllu-mini-chat",
    system: Annotated[str | None, typer.Option(help="What the model should be and do.")] = None,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.Penalty = None,
    seed: flags.Seed = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to talk of; may be given several times.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="A recording to talk of, or the question itself; may be "
                                                     "given several times.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-p", help="Answer this, and end.")] = None,
    senses: flags.Senses = None,
    adapter: flags.Adapter = None,
    rope_scaling: flags.RopeScaling = None,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    as_json: Json = False,
) -> None:
    """Talk with a model. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.

    `ayllu chat --image cat.png --message "What is this?"` answers once.
    """
    options = flags.stated(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                           repetition_penalty=repetition_penalty, seed=seed)
    is_person = sys.stdin.isatty() and sys.stdout.isatty()
    if as_json and message is None:
        raise ConfigError("--json is for one answer: give --message TEXT")
    llm = flags.load_llm(model, dtype, device, adapter, rope_scaling, senses)
    repl = Repl(llm, Conversation(model, system, options=options), is_person)
    for path in image or ():
        repl.show(image_part(path))
    for path in audio or ():
        repl.show(audio_part(path))
    if message is not None:
        _once(repl, message, as_json)
        return
    if is_person:
        say(f"{model} · /help lists the commands, \"\"\" begins and ends several lines, Ctrl-C stops an answer, "
            "Ctrl-D leaves")
    if not repl.llm.has_chat_template:
        say(f"{model} is a base model without a chat template: it was not trained to answer. It continues a written "
            "dialogue instead, so take what it says as a continuation.")
    repl.run(_typed() if is_person else _piped)


def _once(repl: Repl, message: str, as_json: bool) -> None:
    repl.ask(message)
    if as_json and (last := repl.last) is not None:
        print_json({"model": repl.conversation.model, "text": last.text, "finish_reason": last.finish_reason,
                    "seed": last.seed, "prompt_tokens": last.prompt_tokens, "tokens": len(last.ids)})


def _typed() -> Read:
    """A person's lines, with editing and a history that stays on disk."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    history = state_folder() / "chat_history"
    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch(mode=0o600)                            # what people write is theirs alone
    session: PromptSession[str] = PromptSession(history=FileHistory(str(history)))
    return session.prompt


def _piped(mark: str) -> str:
    """The next line of a file or another program."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
