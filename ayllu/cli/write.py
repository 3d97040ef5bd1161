"""`ayllu write`: a text from a brief, many from a table, or a text written anew."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ayllu.cli import sampling as flags
from ayllu.cli.drafts import keep, list_drafts, newest, show_draft
from ayllu.cli.launch import words_of
from ayllu.cli.output import Json, print_json, write_text
from ayllu.errors import ConfigError
from ayllu.files import write_bytes
from ayllu.log import say

if TYPE_CHECKING:
    from ayllu.apps.speaker import LocalSpeaker
    from ayllu.apps.write.brief import Brief
    from ayllu.apps.write.checks import Report
    from ayllu.apps.write.copies import Sources

Kind = Literal["article", "story", "poem", "product", "post", "dialogue"]
Action = Literal["rewrite", "shorten", "expand", "continue", "tone", "titles"]
ALWAYS = {"topic", "draft", "out", "model", "seed", "adapter", "dtype", "device", "as_json"}
USED = {"--batch": {"batch", "source", "training"},
        "--revise or --action": {"revise", "action", "tone", "wish", "source", "training"},
        "--topic": {"keywords", "kind", "audience", "tone", "length", "language", "point", "forbid", "sections",
                    "heading", "source", "training", "temperature"}}                    # what each way of writing heeds
FORMS = {".md": "md", ".txt": "md", ".html": "html", ".docx": "docx"}


def write(
    ctx: typer.Context,
    topic: Annotated[str | None, typer.Option(help="What the text is about; enough by itself.")] = None,
    keywords: Annotated[str | None, typer.Option(help="Words that are to occur, with commas between; enough without a "
                                                 "topic.")] = None,
    kind: Annotated[Kind, typer.Option(help="What it becomes.")] = "article",
    audience: Annotated[str, typer.Option(help="For whom.")] = "",
    tone: Annotated[str, typer.Option(help="How it sounds: friendly, formal, ...")] = "",
    length: Annotated[int | None, typer.Option(min=20, max=20_000, help="Words; in Chinese characters.")] = None,
    language: Annotated[Literal["auto", "en", "zh"], typer.Option(help="auto: that of the topic.")] = "auto",
    point: Annotated[list[str] | None, typer.Option(help="Something that must be covered; may be given several times.")]
    = None,
    forbid: Annotated[list[str] | None, typer.Option(help="A word that must not occur; may be given several times.")]
    = None,
    sections: Annotated[int | None, typer.Option(min=1, max=40, help="By default as the length asks.")] = None,
    heading: Annotated[list[str] | None, typer.Option(help="Your own outline: a heading, several times.")] = None,
    source: Annotated[list[Path] | None, typer.Option(help="A file of which nothing may be copied; what is, is shown "
                                                      "with its place. May be given several times.")] = None,
    training: Annotated[list[Path] | None, typer.Option(help="What the model was trained on, files or folders: what is "
                                                        "copied from it is shown, too.")] = None,
    revise: Annotated[Path | None, typer.Option(help="A text to work on instead of writing a new one.")] = None,
    action: Annotated[Action | None, typer.Option(help="What is done with it; rewrite by default.")] = None,
    wish: Annotated[str, typer.Option(help="What is to be minded at that.")] = "",
    batch: Annotated[Path | None, typer.Option(help="A table of briefs (.csv, .jsonl): columns topic, keywords... "
                                               "--out keeps each text when it is finished; called again, it goes on.")]
    = None,
    draft: Annotated[str | None, typer.Option(help="Keep the text as a version of this draft. Alone it shows the "
                                              "newest version; with --action that is worked on.")] = None,
    diff: Annotated[str | None, typer.Option(metavar="OLD:NEW", help="Show what changed between two versions of "
                                             "--draft, such as 1:2.")] = None,
    drafts: Annotated[bool, typer.Option("--drafts", help="List the drafts, those of the page too.")] = False,
    out: Annotated[Path | None, typer.Option(help="The file: .md, .html or .docx; .jsonl for --batch.")] = None,
    model: flags.Model = "ayllu-mini-chat",
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token always.")] = 0.8,
    seed: flags.Seed = None,
    adapter: flags.Adapter = None,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    as_json: Json = False,
) -> None:
    """Write a text: an outline, then section by section, then checks of its length, points, repetition and copies.

    Example: ayllu write --topic 未来科技
    """
    from ayllu.apps.write.brief import Brief
    from ayllu.apps.write.copies import read_sources
    from ayllu.config import validate

    is_new = topic is not None or keywords is not None
    given = is_new + sum(value is not None for value in (revise, batch))
    if drafts or (draft is not None and not given and action is None):
        list_drafts(as_json=as_json) if drafts else show_draft(draft or "", diff, as_json=as_json)
        return
    if given + (not given and draft is not None) != 1 or diff or (batch and draft):
        raise ConfigError("say what is to be written: one of --topic TEXT (or --keywords), --revise FILE, "
                          "--batch FILE and --draft NAME with --action; --diff goes with --draft alone, and --batch "
                          "keeps no drafts")
    way = "--batch" if batch is not None else "--topic" if is_new else "--revise or --action"
    if ignored := [word.partition("=")[0] for word in words_of(ctx, without=ALWAYS | USED[way])]:
        raise ConfigError(f"{', '.join(ignored)} can't be heeded where {way} is given: leave it away (a batch has "
                          "such things in its table's columns, a revision in --wish)")
    sources = read_sources(((str(path), path) for path in source or ()), training or ())
    _form(out, is_batch=batch is not None)               # known to be right before anything is written
    load = {"adapter": adapter, "dtype": dtype, "device": device}
    if batch is not None:
        _batch(batch, out, model, load, seed, sources, as_json)
    elif not is_new:
        _revise(revise, draft, action or "rewrite", tone, wish, out, model, load, seed, sources, as_json)
    else:
        words = tuple(re.split("[,;，；、]", keywords or ""))
        brief = validate(Brief, {"topic": topic or "", "keywords": words, "kind": kind, "audience": audience,
                                 "tone": tone, "length": length, "language": language, "points": tuple(point or ()),
                                 "forbidden": tuple(forbid or ()), "sections": sections}, where="ayllu write")
        _one(brief, _speaker(model, load), sources, tuple(heading or ()), out, seed, temperature, as_json, draft)


def _one(brief: "Brief", speaker: "LocalSpeaker", sources: "Sources", outline: Sequence[str],
         out: Path | None, seed: int | None, temperature: float, as_json: bool, draft: str | None) -> None:
    from ayllu.apps.write.checks import check
    from ayllu.apps.write.compose import compose

    shows, text = sys.stdout.isatty() and not as_json, ""
    for event in compose(brief, speaker, seed=seed, outline=outline, temperature=temperature):
        if event.kind == "outline":
            headings = event.outline
            say("outline: " + " / ".join(headings))
        elif event.kind == "section" and shows and len(headings) > 1:
            write_text(f"\n\n## {event.text}\n\n")
        elif event.kind == "section":
            say(f"section {event.index + 1} of {len(headings)}: {event.text}")
        elif event.kind == "text" and shows:
            write_text(event.text)
        elif event.kind == "done":
            text = event.text
    report = check(text, brief, sources)
    if out is not None:
        _save(out, text, brief.topic)
    if draft:
        keep(draft, brief, (text, ""))
    if as_json:
        print_json({"topic": brief.topic, "outline": headings, "text": text, "checks": report.as_json(),
                    "model": speaker.name, "is_small": speaker.is_small, "out": str(out) if out else None})
    else:
        write_text("\n" if shows else text)
    say("\n".join(lines_of(report)))


def _revise(file: Path | None, draft: str | None, action: Action, tone: str, wish: str, out: Path | None, model: str,
            load: dict[str, Any], seed: int | None, sources: "Sources", as_json: bool) -> None:
    from ayllu.apps.write.brief import Brief
    from ayllu.apps.write.checks import check
    from ayllu.apps.write.copies import read_text
    from ayllu.apps.write.revise import revise

    name = draft or (file.stem if file else "")
    text = read_text(file, str(file)) if file else newest(name)
    speaker, pieces = _speaker(model, load), []
    for piece in revise(text, action, speaker, tone=tone, wish=wish, seed=seed):
        pieces.append(piece)
        if not as_json:
            write_text(piece)
    new = "".join(pieces)
    if out is not None:
        _save(out, new, name)
    if draft and action != "titles":
        whole = f"{text.rstrip()}\n\n{new}" if action == "continue" else new
        keep(draft, Brief(topic=draft[:500]), (text, ""), (whole, action))
    report = None if action == "titles" else check(new, None, sources)
    print_json({"action": action, "text": new, "checks": report and report.as_json(), "model": speaker.name,
                "is_small": speaker.is_small}) if as_json else write_text("\n")
    if report is not None:
        say("\n".join(lines_of(report)))


def _batch(file: Path, out: Path | None, model: str, load: dict[str, Any], seed: int | None,
           sources: "Sources", as_json: bool) -> None:
    import json

    from ayllu.apps.write.batch import finished, read_briefs, write_all

    out = out or file.with_suffix(".texts.jsonl")
    rows, faults = read_briefs(file)
    for fault in faults:
        say(f"left out: {fault}")
    done = finished(out, rows)
    if done:
        say(f"{done} of {len(rows)} texts are in {out} already: going on after them")
    if done < len(rows):
        speaker = _speaker(model, load)
        with out.open("a", encoding="utf-8") as kept:
            try:
                for value in write_all(rows, speaker, done=done, seed=seed or 0, sources=sources):
                    kept.write(json.dumps(value, ensure_ascii=False) + "\n")
                    kept.flush()
                    done += 1
                    faulty = ", ".join(value["checks"]["faults"]) or "all checks met"
                    say(f"{done} of {len(rows)}: {value['topic']} ({faulty})")
            except KeyboardInterrupt:
                say(f"stopped: {done} of {len(rows)} texts are in {out}; the same command goes on")
                raise
    result = {"out": str(out), "texts": done, "left_out": faults}
    print_json(result) if as_json else typer.echo(str(out))


def lines_of(report: "Report") -> list[str]:
    """The checks for people: one line each, and where to look."""
    missing = [p["point"] for p in report.points if not p["covered"]]
    marks = {True: "not met", False: "met"}
    asked = f"{marks['length' in report.faults]}: {report.length} of {report.target}"
    lines = [f"length      {asked if report.target else report.length} {report.unit}"]
    if report.points:
        lines.append(f"points      {marks[bool(missing)]}: {len(report.points) - len(missing)} of {len(report.points)}"
                     + (f"; missing: {'; '.join(missing)}" if missing else ""))
    if report.missing:
        lines.append(f"keywords    not met: {', '.join(report.missing)} not said")
    if report.forbidden:
        lines.append("forbidden   not met: "
                     + ", ".join(f"{span.text} (at character {span.start})" for span in report.forbidden))
    lines.append(f"repetition  {marks['repetition' in report.faults]}: {report.repetition:.0%} of runs of 4 stood "
                 f"before, {len(report.repeated)} sentences came again")
    lines += [f"came again  {span.text[:80]} (at character {span.start})" for span in report.repeated[:20]]
    lines += [f"copy        {copy.n_units} {report.unit} of {copy.source} (from its character {copy.source_start}): "
              f"{copy.text[:80]!r}" for copy in report.copies]
    lines += [f"not read    {report.unread}"] if report.unread else []
    return lines + [f"to check    {claim.text[:100]}" for claim in report.claims[:20]]


def _speaker(model: str, load: dict[str, Any]) -> "LocalSpeaker":
    from ayllu.apps.speaker import LocalSpeaker
    from ayllu.apps.write.words import SMALL_MODEL

    speaker = LocalSpeaker.load(model, **load)
    if speaker.is_small:
        say(SMALL_MODEL.format(model=speaker.name))
    return speaker


def _form(out: Path | None, *, is_batch: bool) -> Any:
    if out is None:
        return None
    if is_batch:
        if out.suffix != ".jsonl":
            raise ConfigError(f"--out {out}: texts of a batch go to a file of JSON Lines, name it .jsonl")
        return None
    if out.suffix.lower() not in FORMS:
        raise ConfigError(f"--out {out}: the ending says the format: {', '.join(FORMS)}")
    return FORMS[out.suffix.lower()]


def _save(out: Path, text: str, title: str) -> None:
    from ayllu.apps.write.export import export
    write_bytes(out, export(text, _form(out, is_batch=False), title))
    say(f"written to {out}")
