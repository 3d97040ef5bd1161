"""A key that stands in a web page: it translates texts for the pages that it is for, paced, and opens nothing else."""

import json

import httpx
import pytest
from server.live import serving

from ayllu.cli.main import run
from ayllu.errors import ConfigError
from ayllu.server import translate
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, add_key, key_of, origin_in, read_keys
from ayllu.server.workspace import Workspace

PAGE, OTHER = "https://blog.example", "https://evil.example"
OWNER = "a-key-of-the-owner-12345"


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    secret = add_key(folder / "keys.json", "blog", None, ("translate",), (PAGE,))
    keys = Keys([*read_keys(folder / "keys.json"), key_of(OWNER)])
    with serving(chat_checkpoint, door=Door(keys=keys), workspace=Workspace(folder / "data")) as found:
        found.secret = secret
        yield found


def ask(live, path="/v1/translate", origin=PAGE, key=None, **body):
    headers = {"authorization": f"Bearer {key or live.secret}", **({"origin": origin} if origin else {})}
    return httpx.post(live.url + path, headers=headers, timeout=60,
                      json={"texts": ["42"], "to": "zh", "from": "en", **body})


def test_its_page_may_translate(live):
    answer = ask(live)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == PAGE
    asked = httpx.options(f"{live.url}/v1/translate", headers={"origin": PAGE})
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, PAGE)


@pytest.mark.parametrize(("change", "status", "code"), [
    ({"origin": OTHER}, 403, "bad_origin"), ({"origin": None}, 401, "invalid_api_key"),
    ({"origin": f"{PAGE}:8443"}, 403, "bad_origin"), ({"path": "/v1/chat/completions"}, 403, "key_scope"),
    ({"path": "/v1/translate/memory"}, 403, "key_scope"), ({"path": "/v1/support/messages"}, 403, "key_scope"),
    ({"html": "<p>x</p>", "texts": None}, 400, None), ({"check": True}, 400, None),
    ({"glossary": {"a": "b"}}, 400, None), ({"texts": ["1"] * 25}, 400, None),
    ({"texts": ["1 " * 4999] * 3}, 400, None)])
def test_it_opens_nothing_else(live, change, status, code):
    answer = ask(live, **change)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["error"]["code"] == code


def test_nothing_is_remembered_for_who_reads_a_page(live):
    ask(live)
    assert not list((live.served.workspace.folder / "translations").glob("*"))


def test_it_is_paced_and_other_keys_are_not(live, monkeypatch):
    monkeypatch.setattr(translate, "PUBLIC_CALLS", 1)
    assert [ask(live).status_code for _ in range(3)][-1] == 429
    assert ask(live, origin=None, key=OWNER).status_code == 200


def test_the_command_makes_one(tmp_path, capsys):
    file = tmp_path / "keys.json"
    assert run(["key", str(file), "--name", "blog", "--translator", "HTTPS://Blog.example/", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "blog"
    kept = read_keys(file)[0]
    assert (kept.scopes, kept.origins) == (("translate",), (PAGE,))
    assert run(["key", str(file), "--name", "b", "--translator", PAGE, "--admin"]) == 2


@pytest.mark.parametrize("text", ["blog.example", "*", "https://blog.example/page", "ftp://blog.example", "null", ""])
def test_what_is_no_origin_is_told(text):
    with pytest.raises(ConfigError, match="no origin"):
        origin_in(text)
