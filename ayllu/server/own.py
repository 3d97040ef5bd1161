"""Routes about tokens, templates and the server itself."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ayllu import __version__
from ayllu.errors import RequestError
from ayllu.server.chat import prompt_of
from ayllu.server.media import shows
from ayllu.server.metrics import CONTENT_TYPE
from ayllu.server.openai import prepared, redactor_for, served_of
from ayllu.server.prompts import Redactor
from ayllu.server.schema import own as schema
from ayllu.server.schema.ollama import Version
from ayllu.server.served import Served
from ayllu.server.sse import Json
from ayllu.server.writing import token_text

router = APIRouter(tags=["Ayllu"])


@router.get("/health", responses={200: {"model": schema.Health}, 503: {"model": schema.Health}}, response_model=None)
async def health(request: Request) -> Response:
    """Whether the engine works; needs no key."""
    is_ok = not served_of(request).service.failure
    return Json(schema.Health(status="ok" if is_ok else "stopped").model_dump(), status_code=200 if is_ok else 503)


@router.get("/metrics", response_class=PlainTextResponse, response_model=None)
async def metrics(request: Request) -> Response:
    """Counts and times, as Prometheus reads them."""
    return Response(served_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE})


@router.get("/version", responses={200: {"model": Version}}, response_model=None)
async def version() -> Response:
    """The version of Ayllu."""
    return Json(Version(version=__version__).model_dump())


@router.post("/tokenize", responses={200: {"model": schema.Tokens}}, response_model=None)
async def tokenize(body: schema.TokenizeRequest, request: Request) -> Response:
    """Ids of a text or of a chat."""
    served = served_of(request)
    served.check_model(body.model)
    ids = await prepared(lambda: _ids(served, body), shows=shows([m.content for m in body.messages or ()]))
    found = schema.Tokens(tokens=ids, count=len(ids), max_model_len=served.context)
    if body.return_token_strs or body.with_pieces:
        found.token_strs = [token_text(served.tokenizer, id)[0] for id in ids]
    return Json(found.model_dump(exclude_none=True))


def _ids(served: Served, body: schema.TokenizeRequest) -> list[int]:
    if body.messages is not None:
        return prompt_of(served, body.messages, body, Redactor(False)).ids
    text = body.prompt if body.prompt is not None else body.content or ""
    special = next((b for b in (body.add_special_tokens, body.add_special) if b is not None), True)
    tokenizer = served.tokenizer
    return tokenizer.encode(text, bos=tokenizer.add_bos and special, allow_special=body.parse_special)


@router.post("/detokenize", responses={200: {"model": schema.Detokenized}}, response_model=None)
async def detokenize(body: schema.DetokenizeRequest, request: Request) -> Response:
    """Text of ids."""
    served = served_of(request)
    served.check_model(body.model)
    wrong = next((id for id in body.tokens if id >= served.vocab_size), None)
    if wrong is not None:
        raise RequestError(f"tokens holds id {wrong}, but the vocabulary has ids 0 to {served.vocab_size - 1}")
    text = await prepared(lambda: served.tokenizer.decode(body.tokens, skip_special=body.skip_special_tokens))
    return Json(schema.Detokenized(prompt=text, content=text).model_dump())


@router.get("/tokenizer_info", responses={200: {"model": schema.TokenizerInfo}}, response_model=None)
async def tokenizer_info(request: Request) -> Response:
    """What a client needs to count as the model does."""
    served = served_of(request)
    t = served.tokenizer
    eos = served.eos_ids

    def piece(id: int | None) -> str | None:
        return None if id is None else t.id_to_piece(id)

    return Json(schema.TokenizerInfo(
        tokenizer_class=t.kind, vocab_size=t.vocab_size, bos_token=piece(t.bos_id), bos_token_id=t.bos_id,
        eos_token=piece(eos[0]) if eos else None, eos_token_id=eos[0] if eos else None, eos_token_ids=list(eos),
        pad_token=piece(t.pad_id), pad_token_id=t.pad_id, add_bos_token=t.add_bos, chat_template=served.chat_template,
        max_model_len=served.context, fingerprint=t.fingerprint).model_dump())


@router.post("/apply-template", responses={200: {"model": schema.Prompted}}, response_model=None)
async def apply_template(body: schema.TemplateRequest, request: Request) -> Response:
    """The exact prompt that the model would read for these messages."""
    served = served_of(request)
    served.check_model(body.model)
    prompt = await prepared(lambda: prompt_of(served, body.messages, body, redactor_for(served)),
                            shows=shows([m.content for m in body.messages]))
    return Json(schema.Prompted(prompt=prompt.text, tokens=prompt.ids, count=len(prompt.ids),
                                max_model_len=served.context).model_dump())
