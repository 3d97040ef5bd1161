"""Customer service over HTTP.

Customers (scope "support", which a key on a web page may hold) write, read, rate and delete their own conversation,
which they name by its secret. People of the business (scope "operate" or "admin") see all of their tenant by number.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from ayllu.apps.speaker import SMALL
from ayllu.apps.support.desk import Conversation, Desk, Message, State
from ayllu.apps.support.figures import figures
from ayllu.apps.support.service import Support, language_in
from ayllu.principal import LOCAL, Principal
from ayllu.server.faults import Fault, FieldError
from ayllu.server.frontdesk import FrontDesk
from ayllu.server.openai import prepared, served_of, who
from ayllu.server.schema import support as schema
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.sse import Json
from ayllu.server.transcriptions import spoken

router = APIRouter(tags=["Customer service"])
Number = Annotated[int, Path(ge=1, lt=2**62)]
T = TypeVar("T")
STATES: dict[str, State] = {"take": "taken", "release": "open", "close": "closed"}


def front_of(request: Request) -> FrontDesk:
    """The customer service behind this server."""
    found: FrontDesk | None = request.app.state.front
    if found is None:
        raise Fault(404, "this server keeps no conversations: start it with `ayllu serve --data FOLDER`",
                    code="no_workspace")
    return found


async def _asked(request: Request, ask: Callable[[Support, Principal], T], *, paced: bool = True) -> T:
    """In a thread, by somebody who may. Customers are paced, by their address and by the key that they come with."""
    front, principal = front_of(request), who(request)
    if not (principal.may("support") or principal.may("generate")):
        principal.require("support")
    service = await prepared(front.service)
    if paced:
        front.pace.take_from(request, principal, service.rules.limits.messages_per_minute)
    return await prepared(lambda: ask(service, principal))


async def _as_operator(request: Request, act: Callable[[Support, Principal], T]) -> T:
    """In a thread, by a person of the business; where no keys are, not from pages elsewhere."""
    front, principal = front_of(request), who(request)
    if not principal.may("admin"):
        principal.require("operate")
    origin = request.headers.get("origin")
    if principal is LOCAL and origin and origin.partition("://")[2] != request.headers.get("host"):
        raise Fault(403, "a page from another origin may write as a customer only: use keys for more",
                    code="bad_origin")
    service = await prepared(front.service)
    return await prepared(lambda: act(service, principal))


# Customers.

@router.get("/v1/support", responses={200: {"model": schema.Persona}}, response_model=None)
async def persona(request: Request, language: Annotated[str | None, Query(max_length=35)] = None) -> Response:
    """Who answers here."""
    hears = "audio" in served_of(request).takes

    def found(service: Support, _: Principal) -> schema.Persona:
        spoken = language_in(service.rules, language)
        it = service.rules.persona_in(spoken)
        return schema.Persona(name=it.name, shop=it.shop, greeting=it.greeting, language=spoken,
                              is_sample=front_of(request).is_sample, hears=hears)
    return Json((await _asked(request, found, paced=False)).model_dump())


@router.post("/v1/support/messages", responses={200: {"model": schema.Talk}}, response_model=None)
async def say(body: schema.Say, request: Request) -> Response:
    """Write as a customer; the answer comes with it, unless a person has the conversation."""
    served = served_of(request)

    def act(service: Support, principal: Principal) -> dict[str, Any]:
        text = body.text if body.audio is None else spoken(ServedSpeaker(served, principal), body.audio)
        if served.n_parameters >= SMALL:
            service = replace(service, speaker=ServedSpeaker(served, principal))
        if body.conversation is not None:
            talk, secret = service.desk.known(principal, body.conversation), body.conversation
        else:
            service.check(text)                          # an impossible first message begins nothing
            talk, secret = service.begin(principal, body.customer, language_in(service.rules, body.language))
        messages = service.say(principal, talk.number, text)
        return _talk(secret, service.desk.conversation(principal, talk.number), messages)
    return Json(await _asked(request, act))


@router.post("/v1/support/history", responses={200: {"model": schema.Talk}}, response_model=None)
async def history(body: schema.Read, request: Request) -> Response:
    """What was said in a conversation since a message: a person may have answered."""
    def act(service: Support, principal: Principal) -> dict[str, Any]:
        talk = service.desk.known(principal, body.conversation)
        return _talk(body.conversation, talk, service.desk.messages(principal, talk.number, body.after))
    return Json(await _asked(request, act, paced=False))


@router.post("/v1/support/feedback", responses={200: {"model": schema.Done}}, response_model=None)
async def feedback(body: schema.Rate, request: Request) -> Response:
    """How an answer was, or the whole."""
    if body.satisfaction is None and (body.message is None or body.thumb is None):
        raise FieldError("satisfaction", "say 1 to 5 as satisfaction, or message and thumb (1 or -1)")

    def act(service: Support, principal: Principal) -> None:
        talk = service.desk.known(principal, body.conversation)
        if body.satisfaction is not None:
            service.desk.satisfy(principal, talk.number, body.satisfaction)
        if body.message is not None and body.thumb is not None:
            service.desk.thumb(principal, talk.number, body.message, body.thumb)
    await _asked(request, act)
    return Json({"ok": True})


@router.post("/v1/support/forget", responses={200: {"model": schema.Done}}, response_model=None)
async def forget(body: schema.Forget, request: Request) -> Response:
    """Delete a conversation with all that was said."""
    await _asked(request, lambda service, principal: service.desk.forget(
        principal, service.desk.known(principal, body.conversation).number))
    return Json({"ok": True})


# People of the business.

@router.get("/v1/support/overview", responses={200: {"model": schema.Overview}}, response_model=None)
async def overview(request: Request, days: Annotated[float, Query(gt=0, le=3660)] = 30,
                   language: Annotated[str | None, Query(max_length=35)] = None) -> Response:
    """Open tickets, questions that the pages don't answer, and figures of the last days."""
    def act(service: Support, principal: Principal) -> dict[str, Any]:
        desk, spoken = service.desk, language_in(service.rules, language)
        return {"tickets": [asdict(ticket) for ticket in desk.tickets(principal)],
                "unanswered": desk.unanswered(principal), "figures": figures(desk, principal, service.rules.cost, days),
                "shop": service.rules.persona_in(spoken).shop, "is_sample": front_of(request).is_sample}
    return Json(await _as_operator(request, act))


@router.get("/v1/support/conversations", responses={200: {"model": schema.Rows}}, response_model=None)
async def conversations(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Those that wait for a person first, then the newest."""
    found = await _as_operator(request, lambda service, who: service.desk.conversations(who, limit=limit))
    return Json({"data": [_row(talk) for talk in found]})


@router.get("/v1/support/conversations/{number}", responses={200: {"model": schema.Full}}, response_model=None)
async def conversation(number: Number, request: Request) -> Response:
    """One with its messages, and why each answer was given."""
    return Json(await _as_operator(request, lambda service, who: _full(service.desk, who, number)))


@router.post("/v1/support/conversations/{number}", responses={200: {"model": schema.Full}}, response_model=None)
async def change(number: Number, body: schema.Act, request: Request) -> Response:
    """Take a conversation over: the assistant is silent until it's given back."""
    def act(service: Support, principal: Principal) -> dict[str, Any]:
        service.desk.set_state(principal, number, STATES[body.do], principal.owner if body.do == "take" else None)
        return _full(service.desk, principal, number)
    return Json(await _as_operator(request, act))


@router.post("/v1/support/conversations/{number}/reply", responses={200: {"model": schema.Full}}, response_model=None)
async def reply(number: Number, body: schema.Reply, request: Request) -> Response:
    """Answer the customer. Who answers takes the conversation over."""
    def act(service: Support, principal: Principal) -> dict[str, Any]:
        service.desk.set_state(principal, number, "taken", principal.owner)
        service.desk.add(number, "operator", "text", body.text)
        return _full(service.desk, principal, number)
    return Json(await _as_operator(request, act))


@router.delete("/v1/support/conversations/{number}", responses={200: {"model": schema.Done}}, response_model=None)
async def remove(number: Number, request: Request) -> Response:
    """Delete a conversation with all that was said."""
    await _as_operator(request, lambda service, who: service.desk.forget(who, number))
    return Json({"ok": True})


@router.post("/v1/support/tickets/{number}/done", responses={200: {"model": schema.Done}}, response_model=None)
async def finish(number: Number, request: Request) -> Response:
    """A ticket is done."""
    await _as_operator(request, lambda service, who: service.desk.finish(who, number))
    return Json({"ok": True})


def _talk(secret: str, talk: Conversation, messages: list[Message]) -> dict[str, Any]:
    return {"conversation": secret, "state": talk.state, "messages": [
        {**{name: getattr(m, name) for name in ("number", "role", "kind", "text", "thumb", "created_s")},
         "citations": m.facts.get("citations", []), "related": m.facts.get("related", [])} for m in messages]}


def _row(talk: Conversation) -> dict[str, Any]:
    return {name: getattr(talk, name) for name in schema.Row.model_fields}


def _full(desk: Desk, principal: Principal, number: int) -> dict[str, Any]:
    return {"conversation": _row(desk.conversation(principal, number)),
            "messages": [asdict(message) for message in desk.messages(principal, number)]}
