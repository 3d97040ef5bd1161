"""`ayllu support`: a customer service in the terminal, one question of it, its check, and a beginning of one's own."""

import sys
from contextlib import closing
from os.path import isdir
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ayllu.cli import sampling as flags
from ayllu.cli.documents import Ear, Spoken, heard
from ayllu.cli.output import Json, print_json, write_text
from ayllu.errors import AylluError, ConfigError
from ayllu.files import data_folder
from ayllu.log import say

if TYPE_CHECKING:
    from ayllu.apps.support.desk import Message
    from ayllu.apps.support.service import Draft, Support

HELP = ("Ask anything of a customer; /audio FILE asks by a recording, /rate 1 to 5 says how it was, /new begins anew, "
        "Ctrl-D leaves.")


def support(
    words: Annotated[list[str] | None, typer.Argument(metavar="[QUESTION] | init FOLDER | check", help="One question; "
                     "init FOLDER: copy the sample shop to begin your own; check: measure the questions of "
                     "questions.tsv in the folder.")] = None,
    docs: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Your pages; by default the sample shop.")]
    = None,
    rules: Annotated[Path | None, typer.Option(help="The rules; by default rules.toml in the folder.")] = None,
    language: Annotated[str | None, typer.Option(help="en or zh, where a message doesn't tell.")] = None,
    model: Annotated[str | None, typer.Option(help="A model that puts answers in its own words, which are checked. Of "
                                              "300 million parameters at least: smaller ones are not asked.")] = None,
    audio: Spoken = None, ear: Ear = "ayllu-mini-chat", device: flags.Device = "auto",
    as_json: Json = False,
) -> None:
    """A customer service that answers from your pages, with citations, and knows what a person must answer."""
    from ayllu.apps.support.pages import copy_sample, sample
    from ayllu.apps.support.service import open_support, place_of

    words = words or []
    if words[:1] == ["init"]:
        if len(words) != 2:
            raise ConfigError("say where to put the copy: ayllu support init FOLDER")
        copy_sample(Path(words[1]))
        say(f"a copy of the sample shop is in {words[1]}: write your own pages there, then\n"
            f"  ayllu support --docs {quote(words[1])}\n  ayllu serve --support {quote(words[1])}")
        if as_json:
            print_json({"out": words[1]})
        return
    if docs is None and (folders := [word for word in words if isdir(word)]):
        raise ConfigError(f"{folders[0]} is a folder: name your pages with --docs {quote(folders[0])}")
    if audio is not None and words:
        raise ConfigError("give the question in words or with --audio, not both")
    if as_json and not words and audio is None:
        raise ConfigError("--json answers one question: ayllu support \"How do returns work?\" --json")
    folder = docs or sample()
    if docs is None:
        say("Paper Crane is a sample: its shop, goods and policies are made up. --docs FOLDER takes your own pages.")
    with closing(open_support(folder, place_of(folder, data_folder()), rules, _speaker(model, device))) as service:
        if left_out := service.pages.left_out:
            say("\n".join(f"left out: {name}: {why}" for name, why in left_out.items()))
        if words == ["check"]:
            _check(service, folder, as_json)
        elif words or audio:
            _one(service, heard(audio, ear) if audio else " ".join(words), language, as_json)
        else:
            _converse(service, language, ear)


def _speaker(model: str | None, device: str) -> Any:
    if model is None:
        return None
    from ayllu.apps.speaker import LocalSpeaker

    speaker = LocalSpeaker.load(model, device=device)
    if speaker.is_small:
        say(f"{model} is too small to put answers in its own words (of ayllu-mini-chat's, none of 161 passed the "
            "check, as docs/support.md tells): the pages' own are given.")
    return speaker


def _one(service: "Support", question: str, language: str | None, as_json: bool) -> None:
    draft = service.answer(question, language)
    _show(draft.text, draft.citations)
    if as_json:
        print_json({"question": question, "kind": draft.kind, "answer": draft.text, **draft.facts(0), "ms": None})


def _converse(service: "Support", language: str | None, ear: str) -> None:
    from ayllu.apps.support.service import language_in
    from ayllu.principal import LOCAL

    is_person = sys.stdin.isatty()
    spoken = language_in(service.rules, language)
    number = service.begin(LOCAL, language=spoken)[0].number
    if is_person:
        say(HELP)
        write_text(service.rules.persona_in(spoken).greeting + "\n")
    while (text := _read(is_person)) is not None:
        try:
            if text == "/new":
                number = service.begin(LOCAL, language=spoken)[0].number
            elif text.startswith("/rate "):
                _rate(service, number, text[6:])
            elif text.startswith("/audio "):
                _tell(service.say(LOCAL, number, heard(Path(text[7:].strip()), ear)))
            elif text == "/bye":
                return
            elif text.startswith("/"):
                say(HELP)
            elif text:
                _tell(service.say(LOCAL, number, text))
        except AylluError as error:
            if not is_person:
                raise
            say(f"error: {error}")


def _read(is_person: bool) -> str | None:
    try:
        return input("> " if is_person else "").strip()
    except EOFError:
        return None


def _rate(service: "Support", number: int, text: str) -> None:
    from ayllu.principal import LOCAL

    if text.strip() not in {"1", "2", "3", "4", "5"}:
        raise ConfigError("/rate takes a number from 1 (bad) to 5 (good)")
    service.desk.satisfy(LOCAL, number, int(text))
    say("thank you")


def _tell(messages: "list[Message]") -> None:
    for message in messages:
        if message.role == "assistant":
            _show(message.text, message.facts["citations"])


def _show(text: str, citations: Any) -> None:
    write_text(text + "\n")
    for citation in citations:
        about = citation if isinstance(citation, dict) else vars(citation)
        say(f"  [{about['source']} › {about['heading']}]" if about["heading"] else f"  [{about['source']}]")


def _check(service: "Support", folder: Path, as_json: bool) -> None:
    """Every question of the folder, and which were not answered as they should be."""
    from ayllu.apps.support.pages import QUESTIONS
    from ayllu.apps.support.questions import Question, given_of, measure, read_questions

    def answer(question: Question) -> Any:
        draft: Draft = service.answer(question.text, question.language)
        return given_of(draft.kind, draft.citations)

    found = measure(read_questions(folder / QUESTIONS), answer)
    for wrong in found["wrong"]:
        say(f"  {wrong['question']}  expected {wrong['expected']}, given {wrong['given']}")
    for name, value in found.items():
        if isinstance(value, dict) and value["n"]:
            low, high = value["interval"]
            write_text(f"{name.replace('_', ' '):22} {100 * value['share']:5.1f} %   {100 * low:.1f} to "
                       f"{100 * high:.1f} of {value['n']}\n")
    if as_json:
        print_json(found)
