"""`ayllu serve` answers over HTTP; `ayllu key` makes a key for it."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ayllu.cli import sampling as flags
from ayllu.cli.launch import is_launched, start_ranks, words_of
from ayllu.cli.output import Json, human_bytes, print_json
from ayllu.errors import ConfigError, extra
from ayllu.log import say

if TYPE_CHECKING:
    import torch

    from ayllu.server.start import Listener
    from ayllu.server.workspace import Workspace

DRAFTED = 4                                              # tokens that --draft guesses where --guesses says nothing


def serve(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder, a file of any format, a hub name, or ayllu-mini.")]
    = "ayllu-mini-chat",
    host: Annotated[str, typer.Option(help="Where to listen; anything but this machine itself needs a key.")]
    = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; by default that of its file.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="A further name for it; may be given several times.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A file of keys that `ayllu key` made. One key may also come from "
                                              "the environment: AYLLU_API_KEY.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name by which the server may be called.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A page elsewhere that may call it: https://...")]
    = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate (PEM), for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Take personal data out of prompts before the model sees "
                                         "them.")] = False,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    context: Annotated[int | None, typer.Option(min=1, help="Tokens that a prompt and its answer may have together; "
                                                "more than the model's own with --rope-scaling only.")] = None,
    rope_scaling: flags.RopeScaling = None,
    cache_mib: Annotated[int | None, typer.Option(min=1, help="Memory for keys and values.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Answers that are written at a time.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more get 503.")] = 256,
    max_wait: Annotated[float, typer.Option(min=0.1, help="Seconds in the queue; who would wait longer gets 503 at "
                                            "once.")] = 1.5,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer; by default the context.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until an answer must be finished.")] = 600,
    int8_cache: Annotated[bool, typer.Option("--int8-cache", help="Keep keys and values in 8 bits: less memory.")]
    = False,
    guesses: Annotated[int, typer.Option(min=0, max=32, help="Tokens guessed ahead from repetition, or by --draft; "
                                         "greedy answers stay the same.")] = 0,
    draft: Annotated[str | None, typer.Option(help="A small model of the same vocabulary that guesses ahead.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="An adapter (a PEFT folder), asked for as "
                                                   "a model of this name; may be given several times.")] = None,
    lora_folder: Annotated[Path | None, typer.Option(help="Clients with an admin's key may load adapters that lie "
                                                     "below this folder.")] = None,
    lora_mib: Annotated[int, typer.Option(min=1, help="Memory for adapters.")] = 1024,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits whatever else is asked at the "
                                                "same time; slower.")] = False,
    attention: Annotated[Literal["auto", "torch", "triton"], typer.Option(help="Attention over pages; auto: triton on "
                                                                          "CUDA, torch elsewhere.")] = "auto",
    cuda_graphs: Annotated[Literal["auto", "off"], typer.Option(help="Replay recorded steps on CUDA; off: launch each "
                                                                "operation anew.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, metavar="N", help="Share the model among N devices of this "
                                                 "machine.")] = 1,
    data: Annotated[Path | None, typer.Option(help="Where jobs, uploads and drafts are kept; by default the user's "
                                              "data folder.")] = None,
    support: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The pages and rules of your customer service "
                                                 "(`ayllu support init FOLDER`); by default the sample shop.")] = None,
    training: Annotated[list[Path] | None, typer.Option(help="What the model was trained on, files or folders: texts "
                                                        "are checked for copies of it.")] = None,
    senses: flags.Senses = None,
    media_hosts: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Machines that images in messages may be "
                                                    "fetched from; by default none.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line for each request.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a model over the APIs of OpenAI, Anthropic and Ollama. Ctrl-C ends it."""
    with extra("serve", "ayllu serve"):
        from ayllu.server import apart, start
    from ayllu import dist
    from ayllu.apps.write.copies import Sources
    from ayllu.config import validate
    from ayllu.device import pick_device
    from ayllu.engine.engine import EngineSettings
    from ayllu.server.gate import Door
    from ayllu.server.limits import Limits

    if support is not None:
        from ayllu.apps.support.pages import RULES
        from ayllu.apps.support.rules import load_rules

        load_rules(support / RULES)                      # a fault in them is told now, not to the first customer
    Sources((), training or ())                          # that they are there is looked at now, too
    door = Door(host, start.load_keys(keys), frozenset(allow_host or ()), frozenset(allow_origin or ()))
    tls = _tls(tls_cert, tls_key)
    engine = validate(EngineSettings, {"cache_mib": cache_mib, "max_rows": max_rows, "max_waiting": max_waiting,
                                       "token_budget": max(512, 2 * max_rows), "deterministic": deterministic,
                                       "kv_dtype": "int8" if int8_cache else "auto",
                                       "n_guesses": guesses or (DRAFTED if draft else 0), "adapter_mib": lora_mib,
                                       "attention": attention, "cuda_graphs": cuda_graphs},
                      where="ayllu serve")
    if tensor_parallel > 1 and not is_launched():
        _check_devices(tensor_parallel, pick_device(device))
        start_ranks(tensor_parallel, ["serve", *words_of(ctx, without={"tensor_parallel"})])
        return
    own: dict[str, Any] = {"dtype": dtype, "device": device, "engine": engine, "rope_scaling": rope_scaling,
                           "context": context}
    with dist.processes(pick_device(device)):            # torchrun's ranks share the model (engine/ranks.py)
        if not dist.is_main():
            start.follow_first(model, **own)
            return
        adapters = (*(lora or ()), *start.looking(model, senses))
        load = {**own, "name": name, "draft": draft, "adapters": adapters, "max_wait_s": max_wait}
        here = {"aliases": tuple(alias or ()), "limits": Limits(tokens=max_tokens, request_s=timeout),
                "redact": redact, "adapter_folder": lora_folder}
        served = apart.load(model, load, {**here, "workspace": _workspace(data), "support": support,
                                         "training": tuple(training or ())})
        try:
            hosts = [host.strip().lower() for host in (media_hosts or "").split(",") if host.strip()]
            start.attach_senses(served, model, senses, device, hosts)
            listener = start.Listener(served, door, port, tls).bind()
            _quieten(quiet)
            _announce(listener, as_json)
            listener.run()
        finally:
            served.service.close()


def _workspace(folder: Path | None) -> "Workspace | None":
    """The folder that was named; where none was, the user's own, unless another server works in that already."""
    from ayllu.files import data_folder
    from ayllu.server.workspace import Workspace

    try:
        return Workspace(folder or data_folder())
    except ConfigError as error:
        if folder is not None:
            raise
        say(f"no jobs and uploads here: {error}")
        return None


def _check_devices(n: int, device: "torch.device") -> None:
    import torch

    if device.type == "cuda" and n > torch.cuda.device_count():
        raise ConfigError(f"--tensor-parallel {n} needs {n} GPUs, and this machine has {torch.cuda.device_count()}: "
                          "ask for as many at most, or for --device cpu")


def _tls(cert: Path | None, key: Path | None) -> Any:
    from ayllu.server.start import Tls

    if (cert is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key belong together: give both, or none")
    return Tls(cert, key) if cert and key else None


def _quieten(quiet: bool) -> None:
    import logging

    logging.getLogger("ayllu.access").setLevel(logging.WARNING if quiet else logging.INFO)


def curl_line(listener: "Listener") -> str:
    """A first call: a chat, or a text to continue where the model has no chat template."""
    served = listener.served
    path, said = ("/v1/completions", {"prompt": "Once upon a time"}) if served.chat_template is None else \
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]})
    body = shlex.quote(json.dumps({"model": served.name, **said, "max_tokens": 50}))
    key = " -H 'Authorization: Bearer YOUR_KEY'" if listener.door.keys else ""
    return f"curl {listener.url}{path}{key} -H 'Content-Type: application/json' -d {body}"


def _announce(listener: "Listener", as_json: bool) -> None:
    """Where it is, what it is, what it takes, and how to try it. On stderr; --json prints the facts on stdout."""
    from ayllu.server.facts import cache_tokens

    served, door = listener.served, listener.door
    cache, n_tokens = served.service.engine.cache.nbytes, cache_tokens(served.service.engine)
    facts = {"url": listener.url, "model": served.name, "context": served.context,
             "weight_bytes": served.weight_bytes, "cache_bytes": cache,
             "cache_tokens": n_tokens, "adapters": list(served.adapters),
             "needs_key": bool(door.keys), "redacts": served.redact, "takes": served.takes,
             "data": str(served.workspace.folder) if served.workspace else None}
    memory = (f"{human_bytes(served.weight_bytes)} of weights ({served.dtype}), {human_bytes(cache)} for keys and "
              f"values of {n_tokens:,} tokens")
    say(f"{served.name} at {listener.url}  (Ctrl-C ends it)\n"
        f"  page     open {listener.url} in a browser\n"
        f"  context  {served.context:,} tokens\n"
        + (f"  takes    {', '.join(served.takes)}\n" if served.perception else "")
        + (f"  adapters {', '.join(served.adapters)}\n" if served.adapters else "") +
        f"  memory   {memory}\n"
        f"  key      {'needed' if door.keys else 'none: only this machine can connect'}"
        + (f"\n  data     jobs and files are kept in {served.workspace.folder}" if served.workspace else "")
        + ("\n  redact   personal data is taken out of prompts" if served.redact else "") +
        f"\n  try      {curl_line(listener)}")
    if as_json:
        print_json(facts)


def key(
    file: Annotated[Path, typer.Argument(help="The file of keys; it is made if it isn't there.")],
    name: Annotated[str, typer.Option(help="Who gets the key.")],
    tenant: Annotated[str | None, typer.Option(help="Whose texts may share a cache; by default NAME alone.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may load and unload adapters, too.")] = False,
    widget: Annotated[bool, typer.Option("--widget", help="It may only write to customer service: fit to stand in a "
                                         "web page, where anybody reads it.")] = False,
    translator: Annotated[list[str] | None, typer.Option(
        metavar="ORIGIN", help="It may only translate texts, from the pages of this origin (https://...; again for "
        "more): fit for the line of translate.js.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="It may answer customers of its tenant, too.")] = False,
    as_json: Json = False,
) -> None:
    """Make an API key for `ayllu serve --keys FILE`. It is shown once; the file keeps its digest only."""
    from ayllu.server.keys import add_key, origin_in

    origins = tuple(origin_in(text) for text in translator or ())
    if (widget or origins) and (admin or operator):
        raise ConfigError("a key for a web page can't be more: leave --admin and --operator away, or make two keys")
    more = (*("admin",) * admin, *("operate",) * operator)
    public = (*("support",) * widget, *("translate",) * bool(origins))
    secret = add_key(file, name, tenant, public or ("generate", "jobs", *more), origins)
    say(f"the key of {name}, shown this once:")
    print_json({"key": secret, "name": name, "file": str(file)}) if as_json else print(secret)
