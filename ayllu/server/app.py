"""The application: all routes, errors in each API's own form, and the layers around them.

    Access (log, metrics) -> Gate (host, origin, key, body) -> FastAPI (routes)
"""

import asyncio
import difflib
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ayllu import __version__
from ayllu.engine.far import FarService
from ayllu.errors import AylluError
from ayllu.server import (
    adapters,
    analyse,
    chat,
    completions,
    documents,
    jobs,
    messages,
    models,
    ollama,
    ollama_models,
    own,
    page,
    responses,
    support,
    transcriptions,
    translate,
    uploads,
    write,
)
from ayllu.server.access import Access
from ayllu.server.faults import Fault, body_of, fault_of
from ayllu.server.frontdesk import FrontDesk
from ayllu.server.gate import Door, Gate
from ayllu.server.kinds import KINDS
from ayllu.server.pace import Pace
from ayllu.server.schema.own import AnthropicError, ErrorBody, OllamaError
from ayllu.server.served import Served
from ayllu.server.sse import Json
from ayllu.server.work import Workers

ROUTERS = (chat, completions, responses, models, messages, ollama, ollama_models, own, adapters, uploads, jobs,
           support, transcriptions, translate, write, analyse, documents, page)
DRAIN_S = 10.0                                           # that running answers get when the server is stopped
STOP_S = 5.0                                             # that a job gets then to hear of it


class Routes(FastAPI):
    """FastAPI, with the document that tells the errors as they are."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return _document(self)


def build_app(served: Served, door: Door) -> Access:
    """The whole ASGI application around one model."""
    return Access(Gate(routes(served), door, served.limits, served.service.refusal, served.service.retry_s),
                  served.metrics)


def routes(served: Served) -> FastAPI:
    """The routes alone."""
    app = Routes(title="Ayllu", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan,
                 swagger_ui_oauth2_redirect_url=None)
    app.state.served = served
    app.state.pace = Pace()
    app.state.front = FrontDesk(served, served.workspace.folder) if served.workspace else None
    for module in ROUTERS:
        app.include_router(module.router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(AylluError, _failed)       # what nobody foresaw is for Access, which logs it
    app.add_exception_handler(Fault, _failed)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    served: Served = app.state.served
    service, served.loop = served.service, asyncio.get_running_loop()
    if not isinstance(service, FarService):              # replicas are watched by what runs them
        served.metrics.watch(service)
        served.queue.n_waiting = lambda: service.counts().waiting
    served.service.start()
    workers = Workers(served, served.workspace, {name: kind.run for name, kind in KINDS.items()}) \
        if served.workspace else None
    if workers is not None:
        workers.start()
    if app.state.front is not None and served.support is not None:           # not for the first customer to wait for
        threading.Thread(target=app.state.front.service, name="ayllu-support", daemon=True).start()
    yield
    if workers is not None:
        workers.tell_to_stop()
    await served.service.drain(DRAIN_S)
    if workers is not None:
        await asyncio.to_thread(workers.join, STOP_S)
        workers.workspace.close()
    if app.state.front is not None:
        await asyncio.to_thread(app.state.front.close)


async def _failed(request: Request, error: Exception) -> Response:
    return _told(request, fault_of(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    says = {404: f"there is no {request.url.path[:200]}: /openapi.json lists what there is",
            405: f"{request.method} is not for this path: /openapi.json lists what there is"}
    return _told(request, Fault(error.status_code, says.get(error.status_code, str(error.detail)),
                                headers=dict(error.headers or {})))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _told(request, invalid(error.errors(), _field_names(request)))


def _told(request: Request, fault: Fault) -> Response:
    return Json(body_of(request.url.path, fault), status_code=fault.status, headers=fault.headers)


def invalid(errors: Sequence[Any], known: Sequence[str]) -> Fault:
    """The first thing that is wrong with a body, by the name of its field."""
    error = errors[0]
    if error["type"] == "json_invalid":
        return Fault(400, f"the body is not valid JSON: {error.get('ctx', {}).get('error', error['msg'])}")
    where = [part for part in error["loc"] if part != "body"]
    name = ".".join(str(part) for part in where if isinstance(part, int) or str(part).isidentifier())
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), known, n=1) if len(where) == 1 else []
        says = f"did you mean {near[0]!r}?" if near else "it can't be honoured: leave it out"
        return Fault(400, f"unknown field {name[:100]!r}; {says}", param=name[:100], code="unknown_parameter")
    if error["type"] == "value_error":
        return Fault(400, f"{name}: {error['ctx']['error']}".removeprefix(": "), param=name or None,
                     code="unsupported_value")
    return Fault(400, f"{name or 'the body'}: {error['msg']}", param=name or None)


def _field_names(request: Request) -> list[str]:
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = getattr(field.field_info, "annotation", None) if field else None
    return list(getattr(kind, "model_fields", {}))


def _document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the errors that there really are: 400 in the API's own form instead of FastAPI's 422."""
    from fastapi.openapi.utils import get_openapi

    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, routes=app.routes,
                           description="The APIs of OpenAI, Anthropic and Ollama over one engine.")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for kind in (ErrorBody, AnthropicError, OllamaError):
        found = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(found.pop("$defs", {}))
        schemas[kind.__name__] = found
    for path, methods in document["paths"].items():
        form = "AnthropicError" if path.startswith("/v1/messages") else "OllamaError" if path.startswith("/api/") \
            else "ErrorBody"
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{form}"}}}
        for operation in methods.values():
            answers = operation["responses"]
            answers.pop("422", None)
            answers["4XX"] = {"description": "What was found, what was expected, what to do", "content": content}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    app.openapi_schema = document
    return document
