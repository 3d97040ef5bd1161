"""Ollama's routes about models: tags, show, ps, embed, version."""

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu import __version__
from ayllu.server.faults import FieldError
from ayllu.server.models import check_width, embedded
from ayllu.server.ollama import model_name, timestamp
from ayllu.server.openai import served_of
from ayllu.server.schema import ollama as schema
from ayllu.server.served import Served
from ayllu.server.sse import Json

router = APIRouter(tags=["Ollama"])


@router.get("/api/version", responses={200: {"model": schema.Version}}, response_model=None)
async def version() -> Response:
    """The version of Ayllu."""
    return Json(schema.Version(version=__version__).model_dump())


@router.get("/api/tags", responses={200: {"model": schema.ListedModels}}, response_model=None)
async def tags(request: Request) -> Response:
    """The models that can be asked for."""
    return Json(schema.ListedModels(models=_listed(served_of(request))).model_dump(exclude_none=True))


@router.get("/api/ps", responses={200: {"model": schema.ListedModels}}, response_model=None)
async def ps(request: Request) -> Response:
    """The models in memory: the same."""
    served = served_of(request)
    engine = served.service.engine
    on_gpu = engine.runner.device.type == "cuda"
    loaded = [m.model_copy(update={"expires_at": "9999-12-31T00:00:00Z", "context_length": served.context,
                                   "size_vram": m.size + engine.cache.nbytes if on_gpu else 0})
              for m in _listed(served)]
    return Json(schema.ListedModels(models=loaded).model_dump(exclude_none=True))


def _listed(served: Served) -> list[schema.Listed]:
    own = [schema.Listed(name=name, model=name, modified_at=timestamp(served.started), size=served.weight_bytes,
                  digest=served.digest, details=_details(served)) for name in (served.name, *sorted(served.aliases))]
    return own + [schema.Listed(name=name, model=name, modified_at=timestamp(adapter.loaded_at), size=adapter.n_bytes,
                         digest=adapter.digest, details=_details(served, served.name))
                  for name, adapter in served.adapters.items()]


def _of_template(served: Served) -> list[str]:
    """Tools, where the template itself shows them; other models are told of them in words."""
    form = served.call_form
    return ["tools"] if form is not None and not form.is_told else []


def _of_senses(served: Served) -> list[str]:
    return [{"image": "vision"}.get(kind, kind) for kind in served.takes[1:]]


def _details(served: Served, parent: str = "") -> schema.Details:
    n = served.n_parameters
    size = f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.1f}M"
    return schema.Details(parent_model=parent, format=served.format, parameter_size=size,
                          quantization_level=served.dtype)


@router.post("/api/show", responses={200: {"model": schema.Shown}}, response_model=None)
async def show(body: schema.ShowRequest, request: Request) -> Response:
    """One model in full."""
    served = served_of(request)
    name = body.model or body.name
    if name is None:
        raise FieldError("model", "model is missing: name one of /api/tags")
    adapter = served.adapter_of(model_name(served, name))
    config = served.service.engine.config
    info = {"general.architecture": "llama", "general.parameter_count": served.n_parameters,
            "llama.context_length": served.context, "llama.embedding_length": config.dim,
            "llama.block_count": config.n_layers, "llama.attention.head_count": config.n_heads,
            "llama.attention.head_count_kv": config.n_kv_heads, "llama.feed_forward_length": config.hidden_dim,
            "llama.vocab_size": config.vocab_size}
    licence = served.licence.name or served.licence.id if served.licence else ""
    modelfile, parent = f"FROM {served.name}\n", ""
    if adapter is not None:
        modelfile, parent = f"{modelfile}ADAPTER {adapter}\n", served.name
    return Json(schema.Shown(modelfile=modelfile, parameters="\n".join(_settings(served)), license=licence,
                      template=served.chat_template or "{{ .Prompt }}", details=_details(served, parent),
                      model_info=info, modified_at=timestamp(served.started),
                      capabilities=["completion", *_of_template(served), *_of_senses(served), "embedding"],
                      ).model_dump())


def _settings(served: Served) -> list[str]:
    return [f"{key} {value}" for key, value in sorted(served.defaults.items())]


@router.post("/api/embed", responses={200: {"model": schema.Embedded}}, response_model=None)
async def embed(body: schema.EmbedRequest, request: Request) -> Response:
    """One vector for each text."""
    begun, served = time.perf_counter(), served_of(request)
    name = model_name(served, body.model)
    check_width(served, body.dimensions)
    vectors, n = await embedded(request, body.input, name)
    return Json(schema.Embedded(model=name, embeddings=vectors, prompt_eval_count=n,
                                total_duration=int((time.perf_counter() - begun) * 1e9)).model_dump())


@router.post("/api/embeddings", responses={200: {"model": schema.OldEmbedded}}, response_model=None)
async def old_embed(body: schema.OldEmbedRequest, request: Request) -> Response:
    """One vector; the older form."""
    vectors, _ = await embedded(request, body.prompt, model_name(served_of(request), body.model))
    return Json(schema.OldEmbedded(embedding=vectors[0]).model_dump())
