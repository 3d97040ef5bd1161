"""Files over HTTP: brought as a raw body or a form, given back as something to save and never to show."""

import shutil
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from ayllu.server.faults import Fault, FieldError
from ayllu.server.filestore import Kept
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import workspace as schema
from ayllu.server.sse import Json
from ayllu.server.workspace import Workspace

router = APIRouter(tags=["Workspace"])
BYTES = {"schema": {"type": "string", "format": "binary"}}
FORM = {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}},
                   "required": ["file"]}}
TAKES = {"requestBody": {"content": {"application/octet-stream": BYTES, "multipart/form-data": FORM}, "required": True}}
GIVES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": BYTES}}}


def workspace_of(request: Request) -> Workspace:
    """The folder behind this server."""
    found = served_of(request).workspace
    if found is None:
        raise Fault(404, "this server keeps no files and jobs: start it with `ayllu serve --data FOLDER`",
                    code="no_workspace")
    return found


@router.post("/v1/files", responses={200: {"model": schema.File}}, response_model=None, openapi_extra=TAKES)
async def bring(request: Request, name: Annotated[str | None, Query(max_length=1000)] = None) -> Response:
    """Keep a file: its bytes as the body, its name as ?name= or in the header x-file-name (percent-encoded); or a
    form (multipart/form-data) with a field `file`. Needs the scope "jobs", as everything that is kept does."""
    files, principal = workspace_of(request).files, who(request)
    await prepared(lambda: files.check_room(principal))
    part = files.part()
    try:
        called = name or unquote(request.headers.get("x-file-name", "")) or None
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
            called = await _from_form(request, part, called)
        else:
            with part.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)
        if not called:
            raise FieldError("name", "the file has no name: POST /v1/files?name=report.pdf")
        if not part.stat().st_size:
            raise FieldError("file", f"{called[:100]} is empty: send its bytes as the body")
        return Json(_told(await prepared(lambda: files.keep(principal, called, part))))
    except ClientDisconnect:
        return Response(status_code=400)                 # nobody reads it
    finally:
        part.unlink(missing_ok=True)


async def _from_form(request: Request, part: Path, called: str | None) -> str | None:
    async with request.form(max_files=1, max_fields=8) as form:
        found = form.get("file")
        if not isinstance(found, UploadFile):
            raise FieldError("file", "the form has no file in its field `file`: curl -F file=@report.pdf")
        with part.open("wb") as file:
            await prepared(lambda: shutil.copyfileobj(found.file, file))
        return called or found.filename


@router.get("/v1/files", responses={200: {"model": schema.Files}}, response_model=None)
async def listed(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Your files, newest first."""
    files, principal = workspace_of(request).files, who(request)
    return Json({"data": [_told(kept) for kept in await prepared(lambda: files.files_of(principal, limit))]})


@router.get("/v1/files/{file_id}", responses={200: {"model": schema.File}}, response_model=None)
async def facts(file_id: str, request: Request) -> Response:
    """What is known of a file."""
    return Json(_told(await _found(file_id, request)))


@router.get("/v1/files/{file_id}/content", responses=GIVES, response_class=Response, response_model=None)
async def content(file_id: str, request: Request) -> Response:
    """Its bytes, as something to save: a browser neither shows it nor guesses what it is."""
    kept = await _found(file_id, request)
    return FileResponse(workspace_of(request).files.path(kept), media_type="application/octet-stream",
                        headers=saved_as(kept.name))


@router.delete("/v1/files/{file_id}", responses={200: {"model": schema.Deleted}}, response_model=None)
async def delete(file_id: str, request: Request) -> Response:
    """Remove it."""
    files, principal = workspace_of(request).files, who(request)
    await prepared(lambda: files.delete(principal, file_id))
    return Json({"id": file_id, "deleted": True})


def saved_as(name: str) -> dict[str, str]:
    """Headers of bytes that people made: a browser saves them under this name (RFC 6266) and does no more."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
            "x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'; sandbox",
            "cache-control": "private, no-store"}


async def _found(file_id: str, request: Request) -> Kept:
    files, principal = workspace_of(request).files, who(request)
    return await prepared(lambda: files.get(principal, file_id))


def _told(kept: Kept) -> dict[str, Any]:
    return schema.File(**vars(kept)).model_dump()
