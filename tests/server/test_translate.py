"""Translation over HTTP, with the bundled model on a live server."""

import time

import httpx
import pytest
from server.live import serving

from ayllu.server.workspace import Workspace


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with serving("ayllu-mini-chat", workspace=Workspace(tmp_path_factory.mktemp("translate"))) as live, \
            httpx.Client(base_url=live.url, timeout=120) as client:
        yield client


def translated(web, **body):
    answer = web.post("/v1/translate", json={"to": "zh", "from": "en", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_texts(web):
    found = translated(web, texts=["I like dogs.", "42", "Tom is <1>a boy</1>."], marked=True)
    assert (found["from"], found["to"]) == ("en", "zh")
    first, number, marked = found["translations"]
    assert (first["translation"], first["origin"], first["is_low"]) == ("我喜欢狗。", "model", False)
    assert (number["translation"], number["origin"]) == ("42", "other")
    assert marked["translation"].count("<1>") == marked["translation"].count("</1>") == 1
    assert translated(web, texts=["I like dogs."])["translations"][0]["origin"] == "memory"


def test_marks_keep_the_callers_numbers(web):
    found = translated(web, texts=["I like <7>dogs</7>.<9/>"], marked=True)["translations"][0]["translation"]
    assert found == "我喜欢<7>狗</7>。<9/>"


def test_a_page(web):
    page = '<html lang="en"><p>I like <b id="x">dogs</b>.</p><pre>x</pre>'
    found = translated(web, html=page)
    assert found["html"] == '<html lang="zh"><p>我喜欢<b id="x">狗</b>。</p><pre>x</pre>'
    assert translated(web, html="<p>1</p>")["html"] == "<p>1</p>"


def test_terms_and_corrections(web):
    assert "犬" in translated(web, texts=["I like dogs."], glossary={"dogs": "犬"})["translations"][0]["translation"]
    answer = web.post("/v1/translate/memory", json={"from": "en", "to": "zh", "source": "I like dogs.",
                                                    "translation": "我爱狗。"})
    assert answer.json()["entries"] > 0
    found = translated(web, texts=["I like dogs."])["translations"][0]
    assert (found["translation"], found["origin"]) == ("我爱狗。", "person")
    assert translated(web, texts=["I like dogs."], memory=False)["translations"][0]["origin"] == "model"


@pytest.mark.parametrize(("body", "says"), [
    ({"texts": ["a"], "html": "a"}, "give one of"), ({}, "give one of"), ({"texts": ["a"], "to": "en"}, "nothing to"),
    ({"texts": ["a"], "to": "xx"}, "isn't known"), ({"texts": ["<1>a"], "marked": True}, "miss a partner"),
    ({"texts": ["1"], "from": None}, "no letters"), ({"texts": ["a"], "form": "en"}, "unknown field 'form'")])
def test_what_is_wrong_is_said(web, body, says):
    answer = web.post("/v1/translate", json={"to": "zh", "from": "en", **body})
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_what_there_is(web):
    found = web.get("/v1/translate").json()
    assert found["languages"]["zh"] == "Chinese"
    assert {".html", ".docx"} <= set(found["suffixes"])
    assert found["bilingual"] == [suffix for suffix in found["suffixes"] if suffix not in (".json", ".po", ".pot")]


def test_files_as_a_job(web):
    brought = {"page.html": b"<p>I like dogs.</p>", "bad.json": b"{", "note.md": b"# I like dogs\n"}
    files = [web.post("/v1/files", params={"name": name}, content=raw).json()["id"] for name, raw in brought.items()]
    job = web.post("/v1/jobs", json={"kind": "translate", "payload": {"files": files, "to": "zh", "from": "en",
                                                                      "memory": False}}).json()
    until = time.monotonic() + 60
    while job["state"] not in ("done", "failed") and time.monotonic() < until:
        time.sleep(0.1)
        job = web.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "done", job
    page, bad, note = job["result"]["files"]
    assert (page["file"]["name"], note["file"]["name"]) == ("page.zh.html", "note.zh.md")
    assert "no JSON" in bad["error"]
    assert web.get(f"/v1/files/{page['file']['id']}/content").text == "<p>我喜欢狗。</p>"
    assert job["progress"] == 1
