"""Understanding posts over HTTP: a few at once, many as a job."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.analyse.config import Analysis
from ayllu.apps.analyse.posts import Post, moment
from ayllu.apps.analyse.reading import Reader
from ayllu.apps.analyse.report import UNMEASURED, measured
from ayllu.apps.analyse.run import RIVALS, SAMPLE, analyse
from ayllu.config import validate
from ayllu.data.packed import Moved
from ayllu.errors import RequestError
from ayllu.server.faults import FieldError
from ayllu.server.openai import prepared
from ayllu.server.schema import analyse as schema
from ayllu.server.sse import Json
from ayllu.server.work import Work

router = APIRouter(tags=["Analyse"])
READ = 0.9                                               # of a job: the rest is topics and the report
MOST_NAME = 250                                          # bytes that a file system takes
SHOWN = 2                                                # examples of each kind in a job's result


@router.post("/v1/analyse", responses={200: {"model": schema.Analysed}}, response_model=None)
async def analyse_posts(body: schema.AnalyseRequest, request: Request) -> Response:
    """What a few posts say: sentiment with the words that it stands on, aspects, emotions, topics, marks for people."""
    def read() -> dict[str, Any]:
        reader = Reader(_settings(body))
        rows = reader([_post(one, i) for i, one in enumerate(body.posts, 1)])
        return {"posts": rows, "measured": measured(), "unmeasured": list(UNMEASURED),
                "told": {name: scorer.told for name, scorer in reader.scorers.by_name.items()}}
    return Json(await prepared(read))


def run_job(work: Work) -> dict[str, Any]:
    """A job: what is read so far stays in a folder of the job, and a later server goes on there."""
    asked = schema.AnalyseJob.model_validate(work.payload)
    folder = work.workspace.folder / "analyse" / work.claim.job.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source = SAMPLE if asked.file == "sample" else _named(work, asked.file, folder / "source")
        size, moved = max(source.stat().st_size, 1), 0

        @contextmanager
        def watch(file: Path) -> Iterator[Moved]:
            def told(n_bytes: int) -> None:
                nonlocal moved
                moved += n_bytes
            yield told

        settings = _settings(asked).model_copy(update={
            **({"brands": RIVALS} if source == SAMPLE and not asked.brands else {}),
            "columns": asked.columns, "unit": asked.unit,
            "examples": {name: str(_named(work, file, folder / f"examples-{i}"))
                         for i, (name, file) in enumerate(asked.examples.items())}})
        found = analyse(source, folder / "out", settings, None,
                        lambda posts: work.beat(min(READ, READ * moved / size)), watch)
        name = "sample" if source == SAMPLE else work.files.name(asked.file).rpartition(".")[0] or "posts"
        files = [work.files.save(f"{name}.{file}", folder / "out" / file)
                 for file in ("report.html", "posts.csv", "posts.jsonl", "summary.json")]
    except Exception:
        if not work.is_stopping.is_set():                # else the next server goes on with it
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return {**_short(found), "files": files}


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """What a page shows; summary.json has all."""
    few = {name: rows[:SHOWN] for name, rows in found["examples"].items()}
    return {**{key: value for key, value in found.items() if key not in ("cited", "entities", "copies")},
            "examples": few}


def _settings(asked: schema.Wanted) -> Analysis:
    return validate(Analysis, {"brands": asked.brands, "pseudonyms": not asked.keep_names, "topics": asked.topics,
                               "zero_shot": asked.labels}, where="what is asked")


def _post(one: str | schema.GivenPost, number: int) -> Post:
    if isinstance(one, str):
        one = schema.GivenPost.model_construct(text=one, id=None, time=None, author=None, group=None)
    if not one.text.strip():
        raise FieldError("posts", f"post {number} is empty: leave empty posts out")
    return Post(one.id or str(number), one.text.strip(), moment(one.time) if one.time else None, one.author, one.group)


def _named(work: Work, file_id: str, place: Path) -> Path:
    """An upload under its own name, by which bad rows are told, and whose ending says how it is read."""
    name = work.files.name(file_id)
    if not Path(name).suffix:
        raise RequestError(f"{name} has no ending: name it .csv, .tsv, .jsonl, .parquet or .txt")
    while len(name.encode()) > MOST_NAME:
        name = name[1:]
    link = place / name
    place.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(work.files.path(file_id))
    return link
