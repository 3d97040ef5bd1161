"""`ayllu analyse`: what posts say, as a report, tables and JSON."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ayllu.cli.output import Json, print_json
from ayllu.errors import ConfigError

Name = Annotated[str | None, typer.Option(help="The column's name, where it isn't recognised.")]
Many = list[str] | None
MOST_FILES = 20                                          # whose bad rows are told


def analyse(posts: Annotated[str | None, typer.Argument(help="A file or folder of posts (.csv, .tsv, .jsonl, .parquet, "
                                                        ".txt, also packed), or - for a pipe.")] = None,
            sample: Annotated[bool, typer.Option("--sample", help="Analyse the made-up posts that we ship.")] = False,
            out: Annotated[Path | None, typer.Option(help="The folder for report.html, posts.csv, posts.jsonl and "
                                                     "summary.json; a stopped run goes on there.")] = None,
            text: Name = None, time: Name = None, author: Name = None, group: Name = None,
            id_: Annotated[str | None, typer.Option("--id", help="The column's name, likewise.")] = None,
            head: Annotated[Many, typer.Option(help="NAME=FOLDER of a trained head; sentiment=... and topic=... take "
                                               "the default's place. Several times.")] = None,
            examples: Annotated[Many, typer.Option(help="NAME=FILE of labelled rows (text, label): few-shot.")] = None,
            labels: Annotated[Many, typer.Option(help="NAME=a|b|c: labels that --model ranks, without examples. Small "
                                                 "models guess.")] = None,
            topic: Annotated[Many, typer.Option(help="NAME or NAME=word|word: a given topic. Without any, topics are "
                                                "found.")] = None,
            brand: Annotated[Many, typer.Option(help="A name whose share of voice is counted.")] = None,
            model: Annotated[str, typer.Option(help="The model of --examples and --labels.")] = "ayllu-mini",
            name_topics: Annotated[str | None, typer.Option(help="A chat model that names found topics.")] = None,
            names: Annotated[bool, typer.Option("--keep-names", help="Leave people's names and handles as they are; "
                                                "see what the report says of the law.")] = False,
            unit: Annotated[str | None, typer.Option(help="Of trends: hour, day, week or month.")] = None,
            recordings: Annotated[str | None, typer.Option(help="POSTS is a folder of recordings: the model with an "
                                                           "ear that writes them down first.")] = None,
            live: Annotated[bool, typer.Option("--live", help="Print each post of a pipe as one JSON line as soon "
                                               "as it is read; no report.")] = False, as_json: Json = False) -> None:
    """Say what posts feel and speak of, what changed and what may be done; nothing leaves this machine.

    Names and handles become marks. Ctrl-C stops, and the same command goes on.

    Example: ayllu analyse posts.csv --brand Orlo --out report
    """
    from ayllu.apps.analyse.config import Analysis
    from ayllu.apps.analyse.run import RIVALS, SAMPLE
    from ayllu.config import validate
    from ayllu.data.encodings import BROKEN
    if sample == (posts is not None):
        raise ConfigError("give a file of posts, - for a pipe, or --sample: one of the three")
    if recordings and (live or posts in (None, "-")):
        raise ConfigError("--recordings reads files: name a folder of recordings, without --live and --sample")
    words: dict[str, Any] = {
        "columns": {"text": text, "time": time, "author": author, "group": group, "id": id_},
        "heads": dict(_pair(word, "--head") for word in head or ()),
        "examples": dict(_pair(word, "--examples") for word in examples or ()),
        "zero_shot": {name: said.split("|") for name, said in (_pair(word, "--labels") for word in labels or ())},
        "topics": {name: said.split("|") if said else () for name, _, said in (w.partition("=") for w in topic or ())},
        "brands": brand or (RIVALS if sample else ()),
        "model": model, "name_topics": name_topics, "pseudonyms": not names, "unit": unit}
    settings = validate(Analysis, words, where="the command line")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors=BROKEN)
    if live:
        _live(posts, settings)
        return
    source = SAMPLE if sample else sys.stdin if posts == "-" else Path(posts or "")
    folder = out or Path("runs") / f"{'sample' if sample else 'pipe' if posts == '-' else Path(posts or '').stem}-posts"
    if recordings:
        source = _heard(source, folder, recordings)
    result = _analysed(source, folder, settings)
    if as_json:
        short = {key: value for key, value in result.items() if key not in ("examples", "cited")}
        print_json({"out": str(folder / "report.html"), **short})
    else:
        typer.echo(_told(result, folder))


def _heard(source: Any, folder: Path, model: str) -> Path:
    """OUT/recordings.jsonl: what was said, as posts."""
    import json

    from ayllu.apps.perceive import transcripts
    from ayllu.cli.documents import seeing
    from ayllu.files import write_text
    from ayllu.log import warn
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(transcripts(seeing(model), [source], lambda name, why: warn(f"{name} is left out: {why}"),
                            folder / "heard.jsonl"))
    if not rows:
        raise ConfigError(f"{source} holds no recording that can be heard: WAV, FLAC, OGG or MP3")
    out = folder / "recordings.jsonl"
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return out


def _analysed(source: Any, folder: Path, settings: Any) -> dict[str, Any]:
    from ayllu.apps.analyse.run import analyse as run
    from ayllu.apps.speaker import LocalSpeaker
    from ayllu.data.folders import files_below
    from ayllu.data.progress import progress
    speaker = LocalSpeaker.load(settings.name_topics) if settings.name_topics else None
    with progress("analysing posts", files_below(source) if isinstance(source, Path) else []) as bar:
        def tick(posts: int) -> None:
            bar.n_documents += posts
        try:
            return run(source, folder, settings, speaker, tick, bar.watch)
        except KeyboardInterrupt:
            typer.echo(f"stopped after {bar.n_documents:,} posts; the same command goes on", err=True)
            raise


def _live(posts: str | None, settings: Any) -> None:
    from ayllu.apps.analyse.posts import Post, read_pipe
    from ayllu.apps.analyse.reading import Reader
    from ayllu.log import warn
    if posts != "-":
        raise ConfigError("--live reads a pipe: ayllu analyse - --live")
    reader = Reader(settings)
    for one in read_pipe(sys.stdin, settings.columns):
        if isinstance(one, Post):
            row, = reader([one])
            reader.explain(row)
            print_json(row)
        else:
            warn(one.told)


def _pair(word: str, option: str) -> tuple[str, str]:
    name, equals, said = word.partition("=")
    if not equals or not name or not said:
        raise ConfigError(f"{option} {word!r} should read NAME=..., as in {option} sentiment=...")
    return name, said


def _left_out(found: dict[str, Any]) -> list[str]:
    """For each file why its first bad row is one, and how many more there are: as many as a screen takes."""
    from ayllu.data.rows import Reject
    first = {row["file"]: row for row in reversed(found["rejects"])}
    shown = list(first)[::-1][:MOST_FILES]
    lines = [Reject(**first[file]).told + f"; {found['left_out'][file] - 1:,} more rows of it" * (
        found["left_out"][file] > 1) for file in shown]
    rest = found["rejected"] - sum(found["left_out"][file] for file in shown)
    return lines + [f"{rest:,} rows of other files: see the report"] * bool(rest)


def _told(found: dict[str, Any], folder: Path) -> str:
    """The result for people."""
    from ayllu.apps.analyse.posts import LONGEST
    from ayllu.apps.analyse.report import UNMEASURED
    total, n, cut = found["sentiment"], found["posts"], found["flags"].get("cut", 0)
    other = sum(row["n"] for code, row in found["language"].items() if code not in ("en", "zh", "und"))
    lines = [f"{n:,} posts" + f", {found['rejected']:,} rows or files left out (the report names them)" * bool(
        found["rejected"]) + f", {cut:,} post{'s' * (cut > 1)} cut after {LONGEST:,} characters" * bool(cut),
        *(f"left out     {line}" for line in _left_out(found)),
        "sentiment    " + ", ".join(f"{name} {total[name] / n:.0%}" for name in ("positive", "neutral", "negative")),
        *["topics       " + "; ".join(f"{name} ({row['n']:,})" for name, row in list(found["topic"].items())[:5])
          ] * bool(found["topic"])]
    lines += [f"not read     {other:,} posts are neither English nor Chinese: to the lexicon they are neutral"] * (
        other > 0 and "lexicon" in found["told"]["sentiment"])
    lines += [f"changed      {c['when']}  {c['of']}: {c['what']} {c['found']:.2f}, expected {c['expected']:.2f}"
              for c in found["trends"].get("changes", [])[:5]]
    lines += [f"to do        {action['en'].replace('{about}', action['about'])}" for action in found["actions"][:5]]
    return "\n".join([*lines, f"not measured {', '.join(UNMEASURED)}: how often these are right",
                      f"report       {folder / 'report.html'}"])
