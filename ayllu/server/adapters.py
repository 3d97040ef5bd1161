"""Adapters while the server runs: loaded and unloaded by who may (vLLM's routes and bodies), each a model's name.

A path comes from a client, so it's one below a folder that the server was started with (--lora-folder), and without one
no path is read at all. Unloading takes the name away at once; answers that are being written are finished.
"""

import asyncio
import re
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ayllu.adapters.lora import Adapter, check_base
from ayllu.adapters.store import read_adapter
from ayllu.engine.engine import Engine
from ayllu.engine.perception import LOOKING
from ayllu.errors import AylluError, ConfigError, Refused, RequestError
from ayllu.model.config import LlamaConfig
from ayllu.server.faults import FieldError
from ayllu.server.openai import served_of, who
from ayllu.server.schema import own as schema
from ayllu.server.served import Served

router = APIRouter(tags=["Ayllu"])


@router.post("/v1/load_lora_adapter", response_class=PlainTextResponse, response_model=None)
async def load_adapter(body: schema.LoadAdapterRequest, request: Request) -> Response:
    """Load a PEFT folder under a name; needs the scope "admin"."""
    who(request).require("admin")
    served = served_of(request)
    path = below(served.adapter_folder, body.lora_path)
    async with served.loading:                           # one at a time: each takes memory while it is read
        if body.lora_name in served.service.engine.adapters.loaded and not body.load_inplace:
            raise FieldError("lora_name", f"lora_name: {body.lora_name!r} is loaded already: unload it first, or set "
                             "load_inplace")
        try:
            await load(served, body.lora_name, path, replace=body.load_inplace)
        except AylluError as error:                      # of the folder, by its name for the client
            raise FieldError("lora_path", str(error).replace(str(path), body.lora_path)) from error
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter", response_class=PlainTextResponse, response_model=None)
async def unload_adapter(body: schema.UnloadAdapterRequest, request: Request) -> Response:
    """Take an adapter's name away; needs the scope "admin". Answers under way are finished with it."""
    who(request).require("admin")
    if body.lora_name == LOOKING:
        raise FieldError("lora_name", f"lora_name: {LOOKING!r} belongs to the senses of this server and stays")
    n = await served_of(request).service.unload_adapter(body.lora_name)
    more = f" {n} requests still use it and are finished." if n else ""
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.{more}")


def below(folder: Path | None, name: str) -> Path:
    """The folder that a client names, which must lie below the server's folder of adapters, links followed."""
    if folder is None:
        raise Refused("lora_path: this server reads no adapters from paths: start it with --lora-folder FOLDER, or "
                      "load them at the start with --lora NAME=PATH")
    home = folder.resolve()
    try:
        path = (home / name).resolve()
    except (ValueError, OSError, RuntimeError):          # a zero byte, a name that is too long, a circle of links
        path = home
    if not path.is_relative_to(home) or path == home:
        raise Refused("lora_path leads out of the server's folder of adapters: name one of the folders in it")
    return path


async def load(served: Served, name: str, path: Path, replace: bool = False) -> None:
    """Read a folder away from the engine's thread, then hand it over between two steps."""
    adapter = await asyncio.to_thread(_read, served, name, path)
    await served.service.load_adapter(name, adapter, replace, path.name)


def load_now(served: Served, name: str, path: Path) -> None:
    """Before the engine's thread runs."""
    engine = served.service.engine
    assert isinstance(engine, Engine)
    engine.load_adapter(name, _read(served, name, path), origin=path.name)


def named_path(text: str) -> tuple[str, Path]:
    """NAME=PATH of the command line."""
    name, equals, path = text.partition("=")
    if not (equals and path and re.fullmatch(schema.ADAPTER_NAME, name)):
        raise ConfigError(f"--lora {text!r} should read NAME=PATH with a name of letters, digits and . _ -, for "
                          "example --lora stories=runs/stories")
    return name, Path(path)


def _read(served: Served, name: str, path: Path) -> Adapter:
    engine = served.service.engine
    if not isinstance(engine.config, LlamaConfig):
        raise RequestError("only the Llama family takes adapters")
    if name in served.own_names or (name == LOOKING and name in engine.adapters.loaded):
        raise RequestError(f"{name!r} is the name of the model itself: choose another one for the adapter")
    try:
        adapter = read_adapter(path, engine.config, most_bytes=engine.adapters.most_bytes)
        check_base(adapter, served.base)
    except OSError as error:                             # of a name that no file can have, say
        raise RequestError(f"{path}: {error.strerror}") from error
    return adapter
