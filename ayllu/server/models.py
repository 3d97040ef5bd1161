"""OpenAI's /v1/models and /v1/embeddings; the list is in Anthropic's form, too."""

import base64
import struct
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.errors import ContextTooLong
from ayllu.server.completions import prompts_of
from ayllu.server.faults import Fault, FieldError
from ayllu.server.openai import prepared, redactor_for, served_of
from ayllu.server.prompts import Prompt
from ayllu.server.schema.base import Prompts
from ayllu.server.schema.completions import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage, Model, ModelList
from ayllu.server.served import Served
from ayllu.server.sse import Json, or_gone

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", responses={200: {"model": ModelList}}, response_model=None)
async def models(request: Request) -> Response:
    """Every name that can be asked for."""
    served = served_of(request)
    found = [_model(served, name) for name in (served.name, *sorted(served.aliases), *served.adapters)]
    return Json(ModelList(data=found, first_id=found[0].id, last_id=found[-1].id).model_dump())


@router.get("/v1/models/{id:path}", responses={200: {"model": Model}}, response_model=None)
async def model(id: str, request: Request) -> Response:
    """One of them."""
    served = served_of(request)
    return Json(_model(served, served.check_model(id)).model_dump())


def _model(served: Served, name: str) -> Model:
    adapter = None if name in served.own_names else served.adapters.get(name)
    created = served.started if adapter is None else int(adapter.loaded_at)
    return Model(id=name, created=created, owned_by="ayllu", max_model_len=served.context, display_name=name,
                 parent=None if name == served.name else served.name, root=adapter.origin if adapter else served.name,
                 input_modalities=served.takes,
                 created_at=datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"))


@router.post("/v1/embeddings", responses={200: {"model": EmbeddingList}}, response_model=None)
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """One vector for each text: the mean of the last layer, of length 1."""
    served = served_of(request)
    name = served.check_model(body.model)
    check_width(served, body.dimensions)
    vectors, n = await embedded(request, body.input, name)
    data = [Embedding(index=i, embedding=_packed(v) if body.encoding_format == "base64" else v)
            for i, v in enumerate(vectors)]
    usage = EmbeddingUsage(prompt_tokens=n, total_tokens=n)
    return Json(EmbeddingList(data=data, model=name, usage=usage).model_dump())


def check_width(served: Served, dimensions: int | None) -> None:
    """Vectors can't be shortened: their first numbers say no more than the others."""
    width = served.service.engine.config.dim
    if dimensions is not None and dimensions != width:
        raise FieldError("dimensions", f"dimensions={dimensions}, but this model's vectors have {width} numbers: leave "
                         "it out")


def check_inputs(served: Served, prompts: list[Prompt]) -> None:
    """All of them, before any is computed."""
    if len(prompts) > served.limits.prompts:
        raise FieldError("input", f"{len(prompts)} texts in one call, at most {served.limits.prompts} are taken")
    for number, prompt in enumerate(prompts):
        if not prompt.ids:
            raise FieldError("input", f"input {number} has no tokens: leave empty texts out")
        if len(prompt.ids) > served.context:
            raise ContextTooLong(f"input {number} has {len(prompt.ids)} tokens and the model's context takes "
                                 f"{served.context}: split it")


async def embedded(request: Request, given: Prompts, name: str) -> tuple[list[list[float]], int]:
    """A vector of each text, and how many tokens they have."""
    served = served_of(request)
    prompts = await prepared(lambda: prompts_of(served, given, redactor_for(served)))
    check_inputs(served, prompts)

    async def vectors() -> list[list[float]]:            # one by one: they hold up no stream for longer than one takes
        return [await served.service.embed(prompt.ids, served.adapter_of(name)) for prompt in prompts]

    found, n = await or_gone(request, vectors()), sum(len(prompt.ids) for prompt in prompts)
    if found is None:
        raise Fault(499, "the client left before the vectors were there")
    request.scope["ayllu.tally"].prompt_tokens += n
    return found, n


def _packed(vector: list[float]) -> Any:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
