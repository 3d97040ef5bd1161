"""Translation over HTTP: texts and pages at once, files as jobs. The memory is each person's own."""

import hashlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.speaker import Speaker
from ayllu.apps.translate.document import told, translate_bytes
from ayllu.apps.translate.formats import FORMATS, SUFFIXES, format_of
from ayllu.apps.translate.holes import Glossary
from ayllu.apps.translate.languages import NAMES, Pair, detect
from ayllu.apps.translate.marks import SHOWN, Parts, Tag, is_nested, joined
from ayllu.apps.translate.measured import all_of, measured
from ayllu.apps.translate.memory import PERSON, Memory
from ayllu.apps.translate.translator import Translator
from ayllu.errors import DataError, RequestError
from ayllu.principal import Principal
from ayllu.server.faults import FieldError
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import translate as schema
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.sse import Json
from ayllu.server.uploads import workspace_of
from ayllu.server.work import Work
from ayllu.server.workspace import Workspace

router = APIRouter(tags=["Translation"])
PUBLIC_CALLS, PUBLIC_TEXTS, PUBLIC_SIGNS = 60, 24, 20_000    # a minute from an address; texts and characters of a call


def memory_of(workspace: Workspace | None, principal: Principal) -> Memory | None:
    """The memory of one person; what others had translated shows in nobody else's."""
    if workspace is None:
        return None
    name = hashlib.sha256(f"{principal.tenant}\n{principal.owner}".encode()).hexdigest()[:32]
    return Memory(workspace.folder / "translations" / f"{name}.sqlite")


@router.get("/v1/translate", responses={200: {"model": schema.TranslatesInto}}, response_model=None)
async def about(request: Request) -> Response:
    """Languages and files that can be translated, and how the served model was measured on them."""
    return Json(schema.TranslatesInto(languages=NAMES, suffixes=list(SUFFIXES), bilingual=[
        suffix for one in FORMATS if one.beside for suffix in one.suffixes],
        measured=all_of(served_of(request).name)).model_dump())


@router.post("/v1/translate", responses={200: {"model": schema.Translations}}, response_model=None)
async def translate(body: schema.TranslateRequest, request: Request) -> Response:
    """Texts, or a page whose words alone change. Doubtful translations are marked, none is left out."""
    served, principal = served_of(request), who(request)
    if not principal.may("generate"):
        principal.require("translate")
        _check_public(body)
        request.app.state.pace.take_from(request, principal, PUBLIC_CALLS)
    speaker = ServedSpeaker(served, principal, model=body.model, tally=request.scope["ayllu.tally"])
    workspace = served.workspace if principal.may("jobs") and body.memory else None

    def work() -> schema.Translations:
        memory = memory_of(workspace, principal)
        with closing(memory) if memory else nullcontext():
            return _page(body, speaker, memory) if body.html is not None else _texts(body, speaker, memory)

    return Json((await prepared(work)).model_dump(by_alias=True))


@router.post("/v1/translate/memory", responses={200: {"model": schema.Remembered}}, response_model=None)
async def correct(body: schema.Correction, request: Request) -> Response:
    """Keep what a person says a text should be."""
    workspace, principal = workspace_of(request), who(request)
    principal.require("jobs")
    pair = Pair(body.source_language, body.to)

    def keep() -> int:
        memory = memory_of(workspace, principal)
        assert memory is not None
        with closing(memory):
            memory.add(pair, PERSON, [(" ".join(body.source.split()), body.translation.strip(), None)])
            return memory.count()

    return Json({"entries": await prepared(keep)})


def _check_public(body: schema.TranslateRequest) -> None:
    """With a key that stands in a web page, what translate.js asks for, and no more."""
    texts = body.texts or []
    if body.html is not None or body.check or body.glossary or body.model:
        raise FieldError("html, check, glossary, model", "a key that stands in web pages translates texts and nothing "
                         "else: leave these away")
    if len(texts) > PUBLIC_TEXTS or sum(map(len, texts)) > PUBLIC_SIGNS:
        raise FieldError("texts", f"with a key that stands in web pages a call may bring {PUBLIC_TEXTS} texts and "
                         f"{PUBLIC_SIGNS:,} characters: send less at a time")


def _maker(terms: dict[str, str], check: bool, speaker: Speaker, memory: Memory | None) -> Callable[[Pair], Translator]:
    glossary = Glossary({term: word or term for term, word in terms.items() if term.strip()})
    return lambda pair: Translator(speaker, pair, memory, glossary, check)


def _texts(body: schema.TranslateRequest, speaker: Speaker, memory: Memory | None) -> schema.Translations:
    assert body.texts is not None
    texts = [(" ".join(text.split()),) if not body.marked else read_marks(text) for text in body.texts]
    pair = Pair(body.source or _detected(body.texts), body.to)
    found = _maker(body.glossary, body.check, speaker, memory)(pair).translate(texts)
    rows = [{**told(text, one), "translation": show_marks(one.parts)} for text, one in
            zip(body.texts, found, strict=True)]
    return schema.Translations(model=speaker.name, source=pair.source, to=pair.target,
                               measured=measured(speaker.name, pair), translations=rows)   # type: ignore[arg-type]


def _page(body: schema.TranslateRequest, speaker: Speaker, memory: Memory | None) -> schema.Translations:
    assert body.html is not None
    make = _maker(body.glossary, body.check, speaker, memory)
    try:
        done = translate_bytes(body.html.encode("utf-8", "replace"), format_of("page.html"), body.to, make,
                               source=body.source, header="utf-8")
    except DataError as error:
        raise RequestError(str(error)) from error
    report = done.report
    return schema.Translations(model=speaker.name, source=report.get("from", body.source or "und"), to=body.to,
                               measured=report.get("measured"), translations=report.get("low", []),
                               html=done.data.decode("utf-8"))


def _detected(texts: list[str]) -> str:
    try:
        return detect(SHOWN.sub("", text) for text in texts)
    except DataError as error:
        raise RequestError(str(error)) from error


def read_marks(text: str) -> Parts:
    """A text whose marks were written out; `start` keeps their numbers, for ours are counted anew."""
    found: list[str | Tag] = []
    place = 0
    for match in SHOWN.finditer(text):
        number = int(match[2])
        found += [" ".join(text[place:match.start()].split("\n")),
                  Tag("close" if match[1] else "hole" if match[3] else "open", number, start=number)]
        place = match.end()
    parts = joined([*found, text[place:]])
    seen = [tag.shown for tag in parts if isinstance(tag, Tag)]
    if not is_nested(parts) or len(set(seen)) < len(seen):
        raise RequestError(f"the marks of {text[:80]!r} cross, miss a partner or come twice: <1>...</1> and <2/>, each "
                           "once")
    return parts


def show_marks(parts: Parts) -> str:
    """The translation with the caller's own numbers."""
    def one(part: str | Tag) -> str:
        if isinstance(part, str):
            return part
        if part.text is not None:
            return part.text
        return {"open": f"<{part.start}>", "close": f"</{part.start}>", "hole": f"<{part.start}/>"}[part.kind]
    return "".join(map(one, parts))


def run_files(work: Work) -> dict[str, Any]:
    """The job: each file into one of its own. A bad one is told and costs no other; after a stop, the memory knows what
    was done."""
    options, n = work.payload, len(work.payload["files"])
    memory = memory_of(work.workspace, work.principal) if options["memory"] else None
    make = _maker(options["glossary"], options["check"], work.speaker, memory)
    reports: list[dict[str, Any]] = []
    with closing(memory) if memory else nullcontext():
        for number, file in enumerate(options["files"]):
            def progress(done: int, total: int, before: int = number) -> None:
                work.beat((before + done / total) / n)

            work.beat(number / n)
            name = work.files.name(file)
            try:
                done = translate_bytes(work.files.path(file).read_bytes(), format_of(name), options["to"], make,
                                       source=options["source"], bilingual=options["bilingual"], progress=progress)
            except DataError as error:
                reports.append({"name": name, "error": str(error)})
                continue
            path = Path(name)
            saved = work.files.save(f"{path.stem}.{options['to']}{path.suffix}", done.data)
            reports.append({"name": name, "file": saved, **done.report})
    return {"files": reports}


