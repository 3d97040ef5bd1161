"""Jobs over HTTP: work that outlives a call, a reload of the page and a restart of the server."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.speaker import SMALL
from ayllu.errors import Overloaded
from ayllu.jobs import Job
from ayllu.server.faults import FieldError
from ayllu.server.kinds import KINDS
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import workspace as schema
from ayllu.server.sse import Json
from ayllu.server.uploads import workspace_of

router = APIRouter(tags=["Workspace"])
MOST_WAITING = 100                                       # jobs of one person


@router.get("/v1/workspace", responses={200: {"model": schema.About}}, response_model=None)
async def about(request: Request) -> Response:
    """What this server keeps and does beside answering."""
    served = served_of(request)
    keeps = served.workspace is not None
    return Json(schema.About(keeps=keeps, kinds=sorted(KINDS) if keeps else [], model=served.name,
                             n_parameters=served.n_parameters, is_small=served.n_parameters < SMALL,
                             context=served.context, upload_bytes=served.limits.upload_bytes,
                             takes=served.takes).model_dump())


@router.post("/v1/jobs", responses={200: {"model": schema.Job}}, response_model=None)
async def submit(body: schema.SubmitJob, request: Request) -> Response:
    """Queue work. It begins when a worker is free, and /v1/jobs/ID says how far it is."""
    workspace, principal = workspace_of(request), who(request)
    kind = KINDS.get(body.kind)
    if kind is None:
        raise FieldError("kind", f"there is no kind of job {body.kind!r}: choose one of {', '.join(sorted(KINDS))}")
    try:
        payload = kind.payload.model_validate(body.payload).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["payload", *(str(part) for part in first["loc"])])[:100]
        says = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
        raise FieldError(where, f"{where}: {says}") from error

    def queue() -> Job:
        waiting = workspace.jobs.jobs_of(principal, "queued", MOST_WAITING)
        if len(waiting) >= MOST_WAITING:
            raise Overloaded(f"{len(waiting)} jobs of yours wait already: wait for them, or cancel some")
        job = workspace.jobs.submit(principal, body.kind, {"label": body.label, "payload": payload})
        return workspace.jobs.get(principal, job)

    job = await prepared(queue)
    workspace.arrived.set()
    return Json(_told(job))


@router.get("/v1/jobs", responses={200: {"model": schema.Jobs}}, response_model=None)
async def listed(request: Request, kind: Annotated[str | None, Query(max_length=64)] = None,
                 state: schema.JobState | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Your jobs, newest first."""
    jobs, principal = workspace_of(request).jobs, who(request)
    found = await prepared(lambda: jobs.jobs_of(principal, state, limit, kind))
    return Json({"data": [{**_told(job), "result": None} for job in found]})


@router.get("/v1/jobs/{job_id}", responses={200: {"model": schema.Job}}, response_model=None)
async def one(job_id: str, request: Request) -> Response:
    """How far it is, and what came of it."""
    jobs, principal = workspace_of(request).jobs, who(request)
    return Json(_told(await prepared(lambda: jobs.get(principal, job_id))))


@router.delete("/v1/jobs/{job_id}", responses={200: {"model": schema.Deleted}}, response_model=None)
async def delete(job_id: str, request: Request) -> Response:
    """Cancel a job that waits or runs; delete one that has ended, with the files that it made."""
    workspace, principal = workspace_of(request), who(request)

    def end() -> bool:
        if workspace.jobs.cancel(principal, job_id).finished_s is None or not had_ended:
            return False
        workspace.files.delete_of(job_id)
        workspace.jobs.delete(principal, job_id)
        return True

    had_ended = (await prepared(lambda: workspace.jobs.get(principal, job_id))).finished_s is not None
    return Json({"id": job_id, "deleted": await prepared(end)})


def _told(job: Job) -> dict[str, Any]:
    return schema.Job(**{name: getattr(job, name) for name in schema.Job.model_fields if name != "label"},
                      label=job.payload["label"]).model_dump()
