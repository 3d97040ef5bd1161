"""The gate alone, around an application that only says what it got."""

import asyncio
import json

import pytest

from ayllu.errors import ConfigError
from ayllu.principal import LOCAL
from ayllu.server.gate import Door, Gate
from ayllu.server.keys import Keys, add_key, key_of, read_keys
from ayllu.server.limits import Limits

SECRET = "a-key-that-a-person-chose"
KEYS = Keys([key_of(SECRET, "alice", "acme")])


class App:
    """Remembers what came through, and may be held up."""

    def __init__(self):
        self.bodies, self.principals, self.wait = [], [], None

    async def __call__(self, scope, receive, send):
        self.principals.append(scope.get("ayllu.principal"))
        self.bodies.append((await receive())["body"])
        if self.wait:
            await self.wait.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})


def call(gate, path="/v1/models", method="GET", headers=None, parts=(b"",), stated=None):
    async def run():
        return await call_async(gate, path, method, headers, parts, stated)
    return asyncio.run(run())


async def call_async(gate, path="/v1/models", method="GET", headers=None, parts=(b"",), stated=None):
    """(status, headers, body); a part that is a number is a pause in seconds, None a client that leaves."""
    todo, sent = list(parts), []

    async def receive():
        while todo:
            part = todo.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            if isinstance(part, float):
                await asyncio.sleep(part)
                continue
            return {"type": "http.request", "body": part, "more_body": bool(todo)}
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    given = {"host": "localhost:8000", **(headers or {}), **({"content-length": str(stated)} if stated else {})}
    scope = {"type": "http", "path": path, "method": method, "scheme": "http",
             "headers": [(k.encode(), v.encode()) for k, v in given.items() if v is not None]}
    await gate(scope, receive, send)
    if not sent:
        return None
    return (sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]},
            b"".join(m.get("body", b"") for m in sent[1:]))


def test_only_loopback_without_a_key():
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="AYLLU_API_KEY"):
            Door(host)
        assert Door(host, KEYS)
    for host in ("127.0.0.1", "::1", "localhost", "127.3.2.1"):
        assert Door(host).is_loopback


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 200), ({"host": "127.0.0.1:8000"}, 200), ({"host": "[::1]:8000"}, 200), ({"host": "friend.test"}, 200),
    ({"host": "evil.example"}, 403), ({"host": "localhost.evil.example:8000"}, 403), ({"host": None}, 403),
    ({"host": "[::1"}, 403),
    ({"origin": "http://localhost:8000"}, 200), ({"origin": "https://ok.example"}, 200),
    ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"origin": "http://localhost:9000"}, 403),
    ({"origin": "https://localhost:8000"}, 403),
])
def test_host_and_origin(headers, status):
    door = Door(hosts=frozenset({"friend.test"}), origins=frozenset({"https://ok.example"}))
    found, sent, _ = call(Gate(App(), door, Limits()), headers=headers)
    assert found == status
    assert (sent.get("access-control-allow-origin") == "https://ok.example") == \
        (headers.get("origin") == "https://ok.example")


def test_preflight_is_answered_for_allowed_origins_only():
    app = App()
    gate = Gate(app, Door("0.0.0.0", KEYS, origins=frozenset({"https://ok.example"})), Limits())
    assert call(gate, method="OPTIONS", headers={"origin": "https://ok.example"})[0] == 204
    assert call(gate, method="OPTIONS", headers={"origin": "https://evil.example"})[0] == 403
    assert app.bodies == []


@pytest.mark.parametrize(("headers", "status"), [
    ({"authorization": f"Bearer {SECRET}"}, 200), ({"authorization": f"bearer  {SECRET} "}, 200),
    ({"x-api-key": SECRET}, 200), ({}, 401), ({"authorization": f"Basic {SECRET}"}, 401),
    ({"authorization": "Bearer wrong"}, 401), ({"x-api-key": SECRET[:-1]}, 401), ({"authorization": "Bearer "}, 401),
    ({"x-api-key": "ключ"}, 401),
])
def test_keys(headers, status):
    app = App()
    gate = Gate(app, Door("0.0.0.0", KEYS), Limits())
    assert call(gate, headers={"host": "any.example", **headers})[0] == status
    assert [p.tenant for p in app.principals] == (["acme"] if status == 200 else [])


def test_deny_by_default():
    gate = Gate(App(), Door(keys=KEYS), Limits())
    for path in ("/v1/models", "/metrics", "/openapi.json", "/health/", "/health/../v1/models", "//health", "/x",
                 "/ui/../v1/models", "/ui/", "/ui/x.js", "//"):
        assert call(gate, path)[0] == 401, path
    assert call(gate, "/health")[0] == call(gate, "/")[0] == 200     # the page's files hold no secret
    app = App()
    call(Gate(app, Door(), Limits()))
    assert app.principals == [LOCAL]


def test_each_api_has_its_own_form_of_an_error():
    gate = Gate(App(), Door(keys=KEYS), Limits())
    forms = {path: json.loads(call(gate, path)[2]) for path in ("/v1/completions", "/v1/messages", "/api/chat")}
    assert forms["/v1/completions"]["error"]["code"] == "invalid_api_key"
    assert forms["/v1/messages"]["error"]["type"] == "authentication_error"
    assert "API key" in forms["/api/chat"]["error"]


def test_bodies_have_limits_of_size_and_time():
    app = App()
    gate = Gate(app, Door(), Limits(body_bytes=10, body_s=0.2))
    assert call(gate, parts=(b"12345", b"67890"))[0] == 200
    assert app.bodies == [b"1234567890"]
    status, headers, _ = call(gate, parts=(b"12345", b"678901"))
    assert (status, headers["connection"]) == (413, "close")
    assert call(gate, stated=11, parts=(30.0, b""))[0] == 413         # at once, without reading
    status, headers, _ = call(gate, parts=(b"1", 5.0, b"2"))
    assert (status, headers["connection"]) == (408, "close")
    assert call(gate, parts=(b"1", None)) is None                     # it left: nobody to answer
    assert len(app.bodies) == 1


def test_no_more_requests_than_the_limit():
    async def run():
        app = App()
        app.wait = asyncio.Event()
        gate = Gate(app, Door(), Limits(active=2))
        held = [asyncio.ensure_future(call_async(gate)) for _ in range(2)]
        await asyncio.sleep(0.01)
        status, headers, _ = await call_async(gate)
        assert (status, headers["retry-after"]) == (503, "1")
        health = asyncio.ensure_future(call_async(gate, "/health"))
        app.wait.set()
        assert [(await h)[0] for h in (*held, health)] == [200, 200, 200]
        assert (await call_async(gate))[0] == 200
        assert gate.n_active == 0
    asyncio.run(run())


def test_websockets_are_refused():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Gate(App(), Door(), Limits())({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_file_of_keys_holds_digests_only(tmp_path):
    file = tmp_path / "keys.json"
    first, second = add_key(file, "alice", None, ("generate",)), add_key(file, "bob", "acme", ("generate", "admin"))
    assert first != second
    assert first not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    keys = Keys(read_keys(file))
    assert keys.find(first).tenant == "alice"
    assert keys.find(second).may("admin")
    assert not keys.find(first).may("admin")
    assert keys.find(first + "x") is None
    with pytest.raises(ConfigError, match="alice already"):
        add_key(file, "alice", None, ())
    with pytest.raises(ConfigError, match="16"):
        key_of("short")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ConfigError, match="no key"):
        read_keys(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('[{"name": "x"}]')
    with pytest.raises(ConfigError, match="no file of keys"):
        read_keys(tmp_path / "bad.json")
