"""Collections of documents over HTTP, questions to them, and the job that reads uploads into one."""

from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.collection import Collection
from ayllu.apps.docqa.ask import Asking, ask
from ayllu.apps.index.cut import page_of
from ayllu.apps.perceive import describe_named
from ayllu.errors import NotFound, RequestError
from ayllu.server.catalogue import Catalogue
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import documents as schema
from ayllu.server.schema.workspace import Deleted
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.sse import EVENTS, Json
from ayllu.server.stepping import told
from ayllu.server.transcriptions import spoken
from ayllu.server.uploads import workspace_of
from ayllu.server.work import Work
from ayllu.server.workspace import Workspace

router = APIRouter(tags=["Documents"])
Number = Annotated[int, Path(ge=1, lt=2**62)]
Place = Annotated[int, Query(ge=0, lt=2**62)]
MOST_SHOWN = 50_000                                      # characters of a document in one answer


def catalogue_of(workspace: Workspace) -> Catalogue:
    """The collections that are kept in a server's folder."""
    return workspace.opened("collections", Catalogue)


@router.get("/v1/collections", responses={200: {"model": schema.CollectionList}}, response_model=None)
async def listed(request: Request) -> Response:
    """Your collections, newest first."""
    catalogue, principal = catalogue_of(workspace_of(request)), who(request)
    return Json({"data": await prepared(lambda: [{**vars(one), "documents": len(catalogue.get(principal, one.id)[1])}
                                                 for one in catalogue.list(principal)])})


@router.post("/v1/collections", responses={200: {"model": schema.CollectionFacts}}, response_model=None)
async def create(body: schema.NewCollection, request: Request) -> Response:
    """Make one. A job of the kind "index" brings uploads into it."""
    catalogue, principal = catalogue_of(workspace_of(request)), who(request)
    made = await prepared(lambda: catalogue.create(principal, body.name))
    return Json({**vars(made), "documents": 0})


@router.get("/v1/collections/{collection}", responses={200: {"model": schema.OneCollection}}, response_model=None)
async def one(collection: str, request: Request) -> Response:
    """What is in it, and what couldn't be read and why."""
    def found() -> dict[str, Any]:
        it, opened = catalogue_of(workspace_of(request)).get(who(request), collection)
        files = [schema.DocumentFacts(**{**vars(d), "pages": len(d.pages), "notes": list(d.notes)}).model_dump()
                 for d in opened.documents()]
        return {**vars(it), "documents": len(opened), "files": files, "left_out": opened.left_out()}
    return Json(await prepared(found))


@router.delete("/v1/collections/{collection}", responses={200: {"model": Deleted}}, response_model=None)
async def delete(collection: str, request: Request) -> Response:
    """Remove it with all documents."""
    catalogue, principal = catalogue_of(workspace_of(request)), who(request)
    await prepared(lambda: catalogue.delete(principal, collection))
    return Json({"id": collection, "deleted": True})


@router.get("/v1/collections/{collection}/documents/{document}", responses={200: {"model": schema.DocumentText}},
            response_model=None)
async def text(collection: str, document: Number, request: Request, start: Place = 0,
               end: Place = MOST_SHOWN) -> Response:
    """What stands in a document from one character to another."""
    def found() -> dict[str, Any]:
        opened = _opened(request, collection)
        it = opened.store.document(document)
        said = opened.text(document, start, min(end, start + MOST_SHOWN))
        return {"id": it.id, "source": it.source, "title": it.title, "kind": it.kind, "characters": it.characters,
                "start": start, "end": start + len(said), "page": page_of(start, it.pages), "text": said}
    return Json(await prepared(found))


@router.delete("/v1/collections/{collection}/documents/{document}", responses={200: {"model": Deleted}},
               response_model=None)
async def forget(collection: str, document: Number, request: Request) -> Response:
    """Take one document out."""
    def remove() -> None:
        opened = _opened(request, collection)
        opened.remove([opened.store.document(document).source])
    await prepared(remove)
    return Json({"id": str(document), "deleted": True})


@router.post("/v1/collections/{collection}/search", responses={200: {"model": schema.Passages}}, response_model=None)
async def search(collection: str, body: schema.SearchRequest, request: Request) -> Response:
    """Find passages."""
    def found() -> list[dict[str, Any]]:
        passages = _opened(request, collection).search(body.question, body.k, body.where, body.way)
        return [asdict(passage) for passage in passages]
    return Json({"passages": await prepared(found)})


@router.post("/v1/ask", responses={200: {"model": schema.Answered, **EVENTS}}, response_model=None)
async def asked(body: schema.AskRequest, request: Request) -> Response:
    """Answer a question from a collection. Streamed: "text" and "citation", then "done" with all of it."""
    opened = await prepared(lambda: _opened(request, body.collection))
    speaker = ServedSpeaker(served_of(request), who(request), model=body.model, tally=request.scope["ayllu.tally"])
    how = Asking(**body.model_dump(include={"k", "way", "where", "unsupported", "fuse", "rerank"}))
    history = [turn.model_dump() for turn in body.history]
    audio = body.audio
    question = body.question if audio is None else await prepared(lambda: spoken(speaker, audio))

    def events() -> Generator[dict[str, Any], None, None]:
        answer, n = ask(question, opened, speaker, history, how), 0
        try:
            for piece in answer:
                for citation in answer.citations[n:]:
                    yield {"type": "citation", "citation": citation.as_json()}
                n = len(answer.citations)
                yield {"type": "text", "text": piece}
            yield {"type": "done", **answer.reply.as_json()}
        finally:
            answer.close()

    return await told(request, events(), body.stream)


def run_index(work: Work) -> dict[str, Any]:
    """A job: uploads go into a collection, and are deleted once they are in. A second run skips what is in already."""
    payload, files, speaker = work.payload, work.workspace.files, work.speaker
    looks = payload.get("pictures", False)               # a job of an older server has none
    if looks and not (speaker.sees or speaker.hears):
        raise RequestError(f"{speaker.name} neither sees nor hears: start the server with --senses FOLDER, or leave "
                           "pictures out")
    _, collection = catalogue_of(work.workspace).get(work.principal, payload["collection"])
    found = {}
    for file in payload["files"]:
        with suppress(NotFound):                         # taken in by the run before
            kept = files.get(work.principal, file)
            found[kept.name] = (file, files.path(kept))
    if not found and work.resume is None:
        raise NotFound("none of the files is there any more: upload them again")
    named, read = {name: path for name, (_, path) in found.items()}, 0.3 if looks else 0.9
    summary = collection.add_named(named, payload["meta"],
                                   lambda done, of, _: work.beat(read * done / of, {"begun": True}))
    if looks:
        describe_named(collection, speaker.name, lambda _: speaker, named, summary,
                       lambda done, of, _: work.beat(0.3 + 0.6 * done / of, {"begun": True}))
    collection.add_vectors(progress=lambda done, of, _: work.beat(0.9 + 0.1 * done / max(of, 1)))
    for file in payload["files"]:
        with suppress(NotFound):
            files.delete(work.principal, file)
    return {key: value for key, value in asdict(summary).items() if key != "passed_over"}


def _opened(request: Request, collection: str) -> Collection:
    return catalogue_of(workspace_of(request)).get(who(request), collection)[1]
