"""Customer service over HTTP: who may do what, and that nobody sees what isn't theirs."""

import base64
import shutil

import httpx
import pytest
from media.small import wav, write_small
from server.live import serving

from ayllu.apps.support.pages import sample
from ayllu.server.faults import Fault
from ayllu.server.frontdesk import FrontDesk
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.pace import KEY_TIMES, Pace
from ayllu.server.start import attach_senses
from ayllu.server.workspace import Workspace

WIDGET, OPERATOR, STRANGER, WRITER = (f"a-key-of-the-{name}-1234" for name in ("widget", "operator", "other", "writer"))
KEYS = Keys([key_of(WIDGET, "web", "shop", ("support",)), key_of(OPERATOR, "ana", "shop", ("generate", "operate")),
             key_of(STRANGER, "eve", "elsewhere", ("generate", "operate")),
             key_of(WRITER, "bob", "shop", ("generate",))])
PAGE = "https://shop.example"


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    """A server with keys, over a copy of the sample whose rules let the tests write fast."""
    top = tmp_path_factory.mktemp("support")
    shutil.copytree(sample(), top / "shop")
    rules = top / "shop" / "rules.toml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("messages_per_minute = 20", "messages_per_minute = 600"),
                     encoding="utf-8")
    with serving(chat_checkpoint, door=Door(keys=KEYS, origins=frozenset({PAGE})),
                 workspace=Workspace(top / "data")) as found:
        found.served.support = top / "shop"
        attach_senses(found.served, "tiny", write_small(top / "senses"), "cpu")
        yield found


def client(live, key, **headers):
    return httpx.Client(base_url=live.url, timeout=60, headers={"authorization": f"Bearer {key}", **headers})


@pytest.fixture(scope="module")
def web(live):
    with client(live, WIDGET, origin=PAGE) as found:
        yield found


@pytest.fixture(scope="module")
def ana(live):
    with client(live, OPERATOR) as found:
        yield found


def begin(web, text, **more):
    return web.post("/v1/support/messages", json={"text": text, **more}).json()


def spoken(data):
    return {"data": base64.b64encode(data).decode(), "format": "wav"}


def test_a_customer_may_speak(live, web, ana):
    heard = httpx.post(f"{live.url}/v1/audio/transcriptions", files={"file": ("a.wav", wav(3))}, timeout=60,
                       headers={"authorization": f"Bearer {OPERATOR}"}).json()["text"]
    told = web.post("/v1/support/messages", json={"audio": spoken(wav(3)), "language": "en"}).json()
    assert [m["role"] for m in told["messages"]] == ["customer", "assistant"]
    assert told["messages"][0]["text"] == heard.strip()
    for body, says in (({"audio": spoken(wav(3)), "text": "hi"}, "text or audio; found both"), ({}, "found neither"),
                       ({"audio": spoken(b"no sound at all")}, "audio is no sound"),
                       ({"audio": {"data": "!!!"}}, "audio.data is no base64"),
                       ({"audio": spoken(wav(3, seconds=121))}, "2.0 minutes or more")):
        answer = web.post("/v1/support/messages", json=body)
        assert (answer.status_code, says in answer.text) == (400, True), answer.text
    perception, live.served.perception = live.served.perception, None
    try:
        deaf = web.post("/v1/support/messages", json={"audio": spoken(wav(3))})
    finally:
        live.served.perception = perception
    assert (deaf.status_code, deaf.json()["error"]["param"]) == (400, "audio")


def test_a_customer_and_a_person(web, ana):
    about = web.get("/v1/support", params={"language": "zh-CN"}).json()
    assert (about["name"], about["language"]) == ("小露", "zh")
    talk = begin(web, "How long is the warranty on lamps?", customer="customer 7")
    said, answer = talk["messages"]
    assert (said["role"], answer["kind"]) == ("customer", "answer")
    assert answer["citations"][0]["source"] == "en/warranty.md"
    over = begin(web, "I want to talk to a human", conversation=talk["conversation"])
    assert over["state"] == "waiting"

    row = ana.get("/v1/support/conversations").json()["data"][0]
    assert (row["customer"], row["state"]) == ("customer 7", "waiting")
    assert talk["conversation"] not in ana.get("/v1/support/conversations").text        # the secret is the customer's
    full = ana.get(f"/v1/support/conversations/{row['number']}").json()
    assert full["messages"][1]["facts"]["confidence"] == 1
    tickets = ana.get("/v1/support/overview").json()["tickets"]
    assert "warranty on lamps" in tickets[0]["summary"]
    ana.post(f"/v1/support/conversations/{row['number']}/reply", json={"text": "Ana here."})
    seen = web.post("/v1/support/history", json={"conversation": talk["conversation"],
                                                 "after": over["messages"][-1]["number"]}).json()
    assert (seen["state"], [m["text"] for m in seen["messages"]]) == ("taken", ["Ana here."])
    quiet = begin(web, "How much is shipping?", conversation=talk["conversation"])
    assert [m["role"] for m in quiet["messages"]] == ["customer"]            # a person has it
    ana.post(f"/v1/support/conversations/{row['number']}", json={"do": "close"})
    ana_sees = ana.get("/v1/support/overview").json()
    assert ana_sees["tickets"] == []
    assert ana_sees["figures"]["conversations"] >= 1
    rated = web.post("/v1/support/feedback", json={"conversation": talk["conversation"], "satisfaction": 4,
                                                   "message": answer["number"], "thumb": 1})
    assert rated.json() == {"ok": True}
    assert ana.get("/v1/support/overview").json()["figures"]["satisfaction"] == 4
    assert web.post("/v1/support/forget", json={"conversation": talk["conversation"]}).status_code == 200
    assert ana.get(f"/v1/support/conversations/{row['number']}").status_code == 404
    assert web.post("/v1/support/history", json={"conversation": talk["conversation"]}).status_code == 404


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/api/chat"), ("GET", "/v1/models"),
    ("GET", "/metrics"), ("POST", "/v1/files"), ("GET", "/v1/jobs"), ("POST", "/tokenize"), ("GET", "/v1/supports"),
    ("POST", "/v1/load_lora_adapter")])
def test_a_key_on_a_web_page_opens_nothing_else(web, method, path):
    answer = web.request(method, path, json={})
    assert answer.status_code == 403
    assert "this key stands in web pages" in answer.text


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/v1/support/conversations"), ("GET", "/v1/support/conversations/1"), ("GET", "/v1/support/overview"),
    ("POST", "/v1/support/conversations/1"), ("POST", "/v1/support/conversations/1/reply"),
    ("DELETE", "/v1/support/conversations/1"), ("POST", "/v1/support/tickets/1/done")])
def test_only_people_of_the_business_see_conversations(live, web, method, path):
    body = {"do": "take"} if path.endswith("/1") else {"text": "x"}
    with client(live, WRITER) as writer:
        for http in (web, writer):
            answer = http.request(method, path, json=body if method == "POST" else None)
            assert answer.status_code == 401
            assert "operate" in answer.text


def test_another_business_sees_nothing(live, web):
    talk = begin(web, "Hello")
    with client(live, STRANGER) as eve:
        assert eve.get("/v1/support/conversations").json()["data"] == []
        assert eve.get("/v1/support/conversations/1").status_code == 404
        assert eve.post("/v1/support/history", json={"conversation": talk["conversation"]}).status_code == 404
        assert eve.post("/v1/support/conversations/1/reply", json={"text": "x"}).status_code == 404


def test_other_pages_stay_out(live):
    with client(live, WIDGET, origin="https://evil.example") as http:
        assert http.get("/v1/support").status_code == 403


def test_without_keys_only_pages_of_the_server_itself_see_all(chat_checkpoint, tmp_path):
    with serving(chat_checkpoint, door=Door(origins=frozenset({PAGE})), workspace=Workspace(tmp_path)) as live, \
            httpx.Client(base_url=live.url, timeout=60) as http:
        begin(http, "hi")
        assert len(http.get("/v1/support/conversations", headers={"origin": live.url}).json()["data"]) == 1
        assert http.get("/v1/support/conversations", headers={"origin": PAGE}).status_code == 403
        assert http.get("/v1/support", headers={"origin": PAGE}).status_code == 200
        assert http.get("/v1/support").json()["is_sample"] is True
        statuses = [http.post("/v1/support/messages", json={"text": "hi"}).status_code for _ in range(21)]
        assert statuses[0] == 200
        assert statuses[-1] == 429                       # 20 messages a minute


def test_wrong_bodies(web):
    for path, body in (("messages", {"text": ""}), ("messages", {"text": " "}), ("messages", {"text": "x" * 2001}),
                       ("messages", {"text": "hi", "conversation": "x" * 65}), ("feedback", {"conversation": "x"}),
                       ("feedback", {"conversation": "x", "satisfaction": 6}), ("history", {})):
        assert web.post(f"/v1/support/{path}", json=body).status_code == 400, (path, body)
    assert web.post("/v1/support/messages", content=b'{"text": "half \\ud800"}').status_code == 400


def test_a_server_that_keeps_nothing_says_so(chat_checkpoint):
    with serving(chat_checkpoint) as live:
        answer = httpx.get(f"{live.url}/v1/support")
    assert answer.status_code == 404
    assert "--data" in answer.text


def test_changed_pages_are_read_again(tmp_path, caplog):
    class Stub:
        support = tmp_path / "shop"

    shutil.copytree(sample(), Stub.support)
    now = [0.0]
    front = FrontDesk(Stub, tmp_path, lambda: now[0])
    question = "Do you sell bicycles?"
    assert front.service().answer(question).kind == "unknown"
    (Stub.support / "en" / "bikes.md").write_text("# Bicycles\n## Bicycles\nWe have no bicycles.", encoding="utf-8")
    assert front.service().answer(question).kind == "unknown"                # it looks every ten seconds
    now[0] = 11.0
    assert front.service().answer(question).text == "We have no bicycles."
    rules = Stub.support / "rules.toml"
    rules.write_text("nonsense = 1\n" + rules.read_text(encoding="utf-8"), encoding="utf-8")
    now[0] = 22.0
    with caplog.at_level("WARNING", logger="ayllu"):
        assert front.service().answer(question).kind == "answer"             # a fault in the rules stops nobody
    assert "goes on with its old pages" in caplog.text
    front.close()


def test_pace():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(3):
        pace.take("a", 3)
    with pytest.raises(Fault) as refused:
        pace.take("a", 3)
    assert refused.value.status == 429
    assert refused.value.headers["retry-after"] == "21"
    pace.take("b", 3)                                    # each by itself
    now[0] = 20.0
    pace.take("a", 3)
    for number in range(20_000):
        pace.take(f"x{number}", 3)
    assert len(pace._buckets) <= 10_000
    assert KEY_TIMES > 1
