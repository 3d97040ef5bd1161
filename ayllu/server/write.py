"""Writing over HTTP, and many texts as a job."""

import io
import json
import zipfile
from collections.abc import Generator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.write.batch import finished, read_briefs, write_all
from ayllu.apps.write.checks import check
from ayllu.apps.write.compose import compose
from ayllu.apps.write.copies import Sources, read_sources
from ayllu.apps.write.drafts import Drafts, diff
from ayllu.apps.write.export import export
from ayllu.apps.write.revise import revise
from ayllu.server.filestore import plain_name
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import write as schema
from ayllu.server.schema.workspace import Deleted
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.sse import EVENTS, Json
from ayllu.server.stepping import told
from ayllu.server.uploads import saved_as, workspace_of
from ayllu.server.work import Work
from ayllu.server.workspace import Workspace

router = APIRouter(tags=["Write"])
TYPES = {"md": "text/markdown", "html": "application/octet-stream",
         "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document"}
FILE: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}
                                                           for kind in TYPES.values()}}}


@router.post("/v1/write", responses={200: {"model": schema.Written, **EVENTS}}, response_model=None)
async def write(body: schema.WriteRequest, request: Request) -> Response:
    """A text from a brief. Streamed: "outline", "section", "text", then "done" with what the whole answer has."""
    speaker = _speaker(request, body)
    sources = await prepared(lambda: _sources(request, body.sources))
    principal = who(request)
    workspace = served_of(request).workspace if principal.may("jobs") else None

    def events() -> Generator[dict[str, Any], None, None]:
        outline: tuple[str, ...] = ()
        for event in compose(body.brief, speaker, seed=body.seed, outline=body.outline, temperature=body.temperature):
            outline = event.outline or outline
            if event.kind == "outline":
                yield {"type": "outline", "outline": list(outline)}
            elif event.kind != "done":
                yield {"type": event.kind, "index": event.index, "text": event.text}
            else:
                report = check(event.text, body.brief, sources)
                draft = drafts_of(workspace).begin(principal, body.brief.topic, body.brief, event.text) \
                    if workspace else None
                yield {"type": "done", "outline": list(outline), "text": event.text, "checks": report.as_json(),
                       "draft": draft}

    return await told(request, events(), body.stream)


@router.post("/v1/write/revise", responses={200: {"model": schema.Revised, **EVENTS}}, response_model=None)
async def revised(body: schema.ReviseRequest, request: Request) -> Response:
    """A text written anew, with the checks that need no brief. Streamed: "text", then "done" with all of it."""
    speaker, sources = _speaker(request, body), await prepared(lambda: _sources(request, ()))

    def events() -> Generator[dict[str, Any], None, None]:
        text = ""
        for piece in revise(body.text, body.action, speaker, tone=body.tone, wish=body.wish, seed=body.seed):
            text += piece
            yield {"type": "text", "text": piece}
        report = None if body.action == "titles" else check(text, None, sources)
        yield {"type": "done", "text": text, "checks": report and report.as_json()}

    return await told(request, events(), body.stream)


@router.post("/v1/write/check", responses={200: {"model": schema.Checked}}, response_model=None)
async def checked(body: schema.CheckRequest, request: Request) -> Response:
    """The checks of a text."""
    sources = await prepared(lambda: _sources(request, body.sources))
    return Json(await prepared(lambda: check(body.text, body.brief, sources).as_json()))


@router.post("/v1/write/export", responses=FILE, response_class=Response, response_model=None)
async def exported(body: schema.ExportRequest) -> Response:
    """A text as a file."""
    data = await prepared(lambda: export(body.text, body.format, body.title))
    return Response(data, media_type=TYPES[body.format],
                    headers=saved_as(f"{plain_name(body.title)[:80]}.{body.format}"))


@router.post("/v1/write/diff", responses={200: {"model": schema.Changes}}, response_model=None)
async def compared(body: schema.DiffRequest) -> Response:
    """What changed between two versions."""
    return Json({"changes": await prepared(lambda: diff(body.old, body.new))})


@router.get("/v1/write/drafts", responses={200: {"model": schema.DraftList}}, response_model=None)
async def listed(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Your drafts."""
    drafts, principal = drafts_of(workspace_of(request)), who(request)
    return Json({"data": await prepared(lambda: drafts.list(principal, limit))})


@router.get("/v1/write/drafts/{draft}", responses={200: {"model": schema.OneDraft}}, response_model=None)
async def one(draft: str, request: Request) -> Response:
    """A draft with its versions."""
    drafts, principal = drafts_of(workspace_of(request)), who(request)
    return Json(await prepared(lambda: drafts.get(principal, draft)))


@router.post("/v1/write/drafts/{draft}", responses={200: {"model": schema.Version}}, response_model=None)
async def added(draft: str, body: schema.VersionRequest, request: Request) -> Response:
    """Keep a further version."""
    drafts, principal = drafts_of(workspace_of(request)), who(request)
    return Json({"version": await prepared(lambda: drafts.add(principal, draft, body.text, body.note))})


@router.delete("/v1/write/drafts/{draft}", responses={200: {"model": Deleted}}, response_model=None)
async def removed(draft: str, request: Request) -> Response:
    """Remove a draft with all its versions."""
    drafts, principal = drafts_of(workspace_of(request)), who(request)
    await prepared(lambda: drafts.delete(principal, draft))
    return Json({"id": draft, "deleted": True})


def run_batch(work: Work) -> dict[str, Any]:
    """A job: each text is kept as soon as it is finished, in a file that a later run goes on with."""
    file = work.payload["file"]
    rows, faults = read_briefs(work.files.path(file), work.files.name(file))
    folder = work.workspace.folder / "write"
    folder.mkdir(exist_ok=True)
    out = folder / f"{work.claim.job.id}.jsonl"
    try:
        with out.open("a", encoding="utf-8") as kept:
            for value in write_all(rows, work.speaker, done=finished(out, rows), seed=work.payload["seed"],
                                   beat=lambda n: work.beat(n / len(rows)), sources=Sources((), work.served.training)):
                kept.write(json.dumps(value, ensure_ascii=False) + "\n")
                kept.flush()
        values = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        name = work.files.name(file).rpartition(".")[0]
        found = {"texts": len(values), "met": sum(not value["checks"]["faults"] for value in values),
                 "left_out": faults, "files": [work.files.save(f"{name}.texts.jsonl", out),
                                               work.files.save(f"{name}.texts.zip", _zipped(values))]}
    except Exception:
        if not work.is_stopping.is_set():                # else the next server goes on with it
            out.unlink(missing_ok=True)
        raise
    out.unlink()
    return found


def drafts_of(workspace: Workspace) -> Drafts:
    """The drafts that are kept in a server's folder."""
    return workspace.opened("drafts", Drafts)


def _zipped(values: Sequence[dict[str, Any]]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, value in enumerate(values, 1):
            archive.writestr(f"{number:03d} {plain_name(value['topic'])[:60]}.md", value["text"])
    return data.getvalue()


def _speaker(request: Request, body: schema.Asked) -> ServedSpeaker:
    return ServedSpeaker(served_of(request), who(request), model=body.model, tally=request.scope["ayllu.tally"])


def _sources(request: Request, ids: Sequence[str]) -> Sources:
    paths = []
    for file_id in ids:
        kept = (files := workspace_of(request).files).get(who(request), file_id)
        paths.append((kept.name, files.path(kept)))
    return read_sources(paths, served_of(request).training)
