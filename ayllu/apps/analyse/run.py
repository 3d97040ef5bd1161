"""`analyse`: posts in, a folder with a report, tables and every post out. Memory stays flat; a stopped run goes on.

Posts are read in chunks; each is in SQLite before the next is begun. Topics that nobody named are found at the end.
"""

import csv
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ayllu.apps.analyse import clusters
from ayllu.apps.analyse.advice import advise
from ayllu.apps.analyse.config import TOPIC, Analysis
from ayllu.apps.analyse.names import Pseudonyms
from ayllu.apps.analyse.phrases import words
from ayllu.apps.analyse.posts import Post, read_pipe, read_posts
from ayllu.apps.analyse.reading import Reader
from ayllu.apps.analyse.report import write_report
from ayllu.apps.analyse.store import Store
from ayllu.apps.analyse.summary import cite, summarise
from ayllu.apps.speaker import Speaker
from ayllu.data.folders import files_below
from ayllu.data.packed import Watch, unwatched
from ayllu.data.rows import Reject
from ayllu.errors import DataError
from ayllu.files import atomic_path, write_json
from ayllu.log import say, warn

CHUNK = 1000
SAMPLE = Path(__file__).parent / "sample.csv"            # made up, with its own dates, groups and troubles
RIVALS = ("Orlo", "Tavi Air")                            # whom it speaks of
LEAST = 30                                               # posts of a language that topics are looked for in


def analyse(source: Path | TextIO, out: Path, settings: Analysis | None = None, speaker: Speaker | None = None,
            tick: Callable[[int], None] = lambda posts: None, watch: Watch = unwatched) -> dict[str, Any]:
    """Analyse a file, a folder's files or a pipe into the folder `out`; gives what summary.json then holds.

    A run that was stopped goes on with the same call. `tick` is told how many posts are done, and may raise to stop.
    """
    settings = settings or Analysis()
    store = Store(out, _key(source, settings), goes_on=isinstance(source, Path))
    try:
        reader = Reader(settings, Pseudonyms(_secret(store)))
        rows = (read_posts(source, settings.columns, watch) if isinstance(source, Path)
                else read_pipe(source, settings.columns))
        _read_all(rows, reader, store, tick)
        if not len(store):
            bad = store.rejects()
            raise DataError("; ".join(["there is no post to analyse", *(one.told for one in bad[:3])]))
        found = [] if settings.topics or TOPIC in reader.scorers.by_name else _find_topics(store, settings, speaker)
        summary = summarise(store, settings, {name: scorer.told for name, scorer in reader.scorers.by_name.items()})
        summary["found_topics"] = found
        summary["actions"] = advise(summary)
        summary["cited"] = cite(store, summary)
        for rows in (*summary["examples"].values(), summary["cited"].values()):
            for row in rows:
                reader.explain(row)
        _write(out, store, summary)
    except BaseException as error:                       # where no post came, there is nothing to go on with
        store.close(remove=isinstance(error, DataError) and not len(store))
        raise
    store.close(remove=True)
    return summary


def _secret(store: Store) -> bytes:
    """Of this run's pseudonyms: kept until the run is finished, and nowhere afterwards."""
    if store.get("secret") is None:
        store.put("secret", secrets.token_hex(32))
    return bytes.fromhex(store.get("secret") or "")


def _key(source: Path | TextIO, settings: Analysis) -> str:
    """What a run must share with an earlier one to go on with it."""
    told: list[Any] = [settings.model_dump(mode="json")]
    if isinstance(source, Path):
        for file in files_below(source):
            with open(file, "rb") as stream:
                told.append((file.name, file.stat().st_size, hashlib.sha256(stream.read(2**20)).hexdigest()))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def _read_all(rows: Iterable[Post | Reject], reader: Reader, store: Store, tick: Callable[[int], None]) -> None:
    done = store.number("read")
    if done:
        say(f"going on after {done:,} rows that an earlier run read")
    iterator = iter(rows)
    for _ in islice(iterator, done):
        pass
    while chunk := list(islice(iterator, CHUNK)):
        posts = [one for one in chunk if isinstance(one, Post)]
        found = reader(posts)
        done += len(chunk)
        store.add(((post.text, row) for post, row in zip(posts, found, strict=True)),
                  (one for one in chunk if isinstance(one, Reject)), done)
        tick(len(posts))


def _find_topics(store: Store, settings: Analysis, speaker: Speaker | None) -> list[dict[str, Any]]:
    """Learn each language's topics from a sample, and give them to all of its posts."""
    share = min(1.0, settings.sample / max(len(store), 1))
    posts: dict[str, list[list[str]]] = {}
    for _, row in store.rows(share):
        posts.setdefault(row["language"], []).append(words(row["text"]))
    learned = {language: topics for language, some in posts.items()
               if len(some) >= LEAST and (topics := clusters.learn(some, settings.seed))}
    names = {language: _named(language, topics, speaker) for language, topics in learned.items()}
    batch: list[tuple[str | None, int]] = []
    for n, row in store.rows():
        topics = learned.get(row["language"])
        number = topics.of(words(row["text"])) if topics else None
        batch.append((None if number is None else names[row["language"]][number], n))
    store.set_topics(batch)
    return [{"language": language, "topics": list(names[language]), "silhouette": round(topics.silhouette, 3)}
            for language, topics in learned.items()]


def _named(language: str, topics: clusters.Topics, speaker: Speaker | None) -> tuple[str, ...]:
    """Names by a model, where one is asked; its distinctive words stand behind each."""
    if speaker is None:
        return topics.names
    if speaker.is_small:
        warn(f"{speaker.name} is too small to name topics well: the distinctive words stand beside each name; use "
             "a model of 1B parameters or more")
    asked = (f"Give one short title (at most four words) for a group of posts whose most distinctive words are: "
             f"{words}. Answer in {'Chinese' if language == 'zh' else 'English'} with the title alone."
             for words in topics.names)
    answers = speaker.answers([[{"role": "user", "content": text}] for text in asked], max_tokens=24, temperature=0.0)
    return tuple(f"{answer.text.strip().splitlines()[0][:40]} ({words})" if answer.text.strip() else words
                 for answer, words in zip(answers, topics.names, strict=True))


FIELDS = ("id", "time", "author", "group", "language", "sentiment", "positive", "topic", "emotion", "toxic", "spam",
          "aspects", "phrases", "text")


def _write(out: Path, store: Store, summary: dict[str, Any]) -> None:
    """posts.jsonl with everything, posts.csv with what fits into cells, summary.json and report.html."""
    with (atomic_path(out / "posts.jsonl") as lines_at, atomic_path(out / "posts.csv") as table_at,
          open(lines_at, "w", encoding="utf-8") as lines,
          open(table_at, "w", encoding="utf-8-sig", newline="") as cells):
        table = csv.writer(cells)
        table.writerow([*FIELDS, *summary["labels"]])
        for _, row in store.rows():
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            table.writerow([_cell(_flat(row, name)) for name in (*FIELDS, *summary["labels"])])
    write_json(out / "summary.json", summary)
    write_report(summary, out / "report.html")


def _flat(row: dict[str, Any], name: str) -> Any:
    match name:
        case "time":
            return row["time"] and datetime.fromtimestamp(row["time"], UTC).isoformat(timespec="seconds")
        case "topic":
            return " | ".join(row["topics"]) if "topics" in row else row.get("found_topic")
        case "emotion":
            return max(row["emotions"], key=lambda one: row["emotions"][one], default=None)
        case "aspects":
            return " | ".join(f"{aspect} {p}" for aspect, p in row["aspects"].items())
        case "phrases":
            return " | ".join(row["phrases"])
    return row[name] if name in row else row["labels"][name][0]


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula is one no more."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
