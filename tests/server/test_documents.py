"""Collections and questions over HTTP: uploads become documents, answers stream with citations, owners are apart."""

import base64
import json

import httpx
import pytest
from media.small import png, wav, write_small
from server.live import hearing, serving

from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.start import attach_senses
from ayllu.server.workspace import Workspace

ANNA, BERT = "a-key-of-anna-0001", "a-key-of-bert-0002"
KEYS = Keys([key_of(ANNA, "anna", "shop", ("generate", "jobs")), key_of(BERT, "bert", "shop", ("generate", "jobs"))])
RETURNS = "Shoes may be returned within 30 days of delivery. Hats can not be returned."


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, door=Door(keys=KEYS), workspace=Workspace(tmp_path_factory.mktemp("data"))) as found:
        yield found


def client(live, key=ANNA):
    return httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def shop(live):
    """A collection that two uploads were read into, one of which can't be."""
    with client(live) as http:
        made = http.post("/v1/collections", json={"name": "Shop"}).json()
        files = [http.post("/v1/files", params={"name": name}, content=data).json()["id"]
                 for name, data in (("returns.txt", RETURNS.encode()), ("bad.pdf", b"no pdf"))]
        payload = {"collection": made["id"], "files": files}
        job = http.post("/v1/jobs", json={"kind": "index", "payload": payload}).json()
        live.wait_until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] not in ("queued", "running"), 60)
        done = http.get(f"/v1/jobs/{job['id']}").json()
        assert done["state"] == "done", done
        assert done["result"]["added"] == 1
        assert "is damaged" in done["result"]["left_out"]["bad.pdf"]
        assert http.get("/v1/files").json()["data"] == []
    return made["id"]


def test_a_collection_tells_what_is_in_it(live, shop):
    with client(live) as http:
        assert [c["documents"] for c in http.get("/v1/collections").json()["data"]] == [1]
        found = http.get(f"/v1/collections/{shop}").json()
        assert [f["source"] for f in found["files"]] == ["returns.txt"]
        assert list(found["left_out"]) == ["bad.pdf"]
        passages = http.post(f"/v1/collections/{shop}/search", json={"question": "hats"}).json()["passages"]
        number, start, end = (passages[0][name] for name in ("document", "start", "end"))
        text = http.get(f"/v1/collections/{shop}/documents/{number}", params={"start": start, "end": end}).json()
        assert text["text"] == RETURNS[start:end] == passages[0]["text"]
        assert http.get(f"/v1/collections/{shop}/documents/999").status_code == 404


def test_a_stream_and_the_whole_say_the_same(live, shop):
    with client(live) as http:
        body = {"collection": shop, "question": "How many days to return shoes?"}
        whole = http.post("/v1/ask", json=body).json()
        cited, = whole["citations"]
        assert RETURNS[cited["start"]:cited["end"]] == cited["quote"] == whole["answer"].removesuffix(" [1]")
        streamed = http.post("/v1/ask", json={**body, "stream": True}).text
        lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
        assert lines.pop() == "[DONE]"
        found = [json.loads(line) for line in lines]
        assert found.pop() == {"type": "done", **whole}
        assert "".join(e["text"] for e in found if e["type"] == "text") == whole["answer"]
        assert [e["citation"] for e in found if e["type"] == "citation"] == whole["citations"]
        history = [{"role": "user", "content": "Can hats be returned?"}, {"role": "assistant", "content": "No."}]
        again = http.post("/v1/ask", json={**body, "question": "And shoes?", "history": history}).json()
        assert "hats" in again["question"]
        unknown = http.post("/v1/ask", json={**body, "question": "What is the capital of France?"}).json()
        assert (unknown["citations"], unknown["is_supported"]) == ([], False)


def test_a_question_may_be_spoken(live, shop, monkeypatch):
    audio = {"data": base64.b64encode(wav(0)).decode()}
    with client(live) as http:
        body = {"collection": shop, "audio": audio}
        answer = http.post("/v1/ask", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "audio")    # it hears nothing
        words = "How many days to return shoes?"
        monkeypatch.setattr(ServedSpeaker, "__init__", hearing(ServedSpeaker.__init__, words))
        told = http.post("/v1/ask", json=body).json()
        assert (told["question"], told["answer"][:5]) == (words, "Shoes")
        assert told == http.post("/v1/ask", json={"collection": shop, "question": words}).json()
        for wrong in ({**body, "question": words}, {"collection": shop}):
            assert http.post("/v1/ask", json=wrong).status_code == 400


def indexed(live, http, collection, files, **more):
    """The job that brings files in, once it is over."""
    ids = [http.post("/v1/files", params={"name": name}, content=data).json()["id"] for name, data in files.items()]
    job = http.post("/v1/jobs", json={"kind": "index", "payload": {"collection": collection, "files": ids, **more}})
    at = f"/v1/jobs/{job.json()['id']}"
    live.wait_until(lambda: http.get(at).json()["state"] not in ("queued", "running"), 60)
    return http.get(at).json()


def test_pictures_of_uploads_are_described_where_that_is_asked_for(chat_checkpoint, tmp_path):
    page = f"<p>Lunch is served.</p><img src='data:image/png;base64,{base64.b64encode(png(1, 64)).decode()}'>"
    files = {"light.png": png(0, 64), "menu.html": page.encode(), "call.wav": wav(0), "broken.png": b"no picture"}
    with serving(chat_checkpoint, workspace=Workspace(tmp_path / "data")) as live, client(live) as http:
        made = http.post("/v1/collections", json={"name": "House"}).json()["id"]
        failed = indexed(live, http, made, files, pictures=True)
        assert (failed["state"], "neither sees nor hears" in failed["error"]) == ("failed", True)
        attach_senses(live.served, "tiny", write_small(tmp_path / "senses"), "cpu")
        assert http.get("/v1/workspace").json()["takes"] == ["text", "image", "audio"]
        left_out = indexed(live, http, made, files)["result"]["left_out"]
        assert list(left_out) == ["light.png", "call.wav", "broken.png"]
        assert "don't know how to read .png" in left_out["light.png"]
        done = indexed(live, http, made, files, pictures=True)
        assert done["state"] == "done", done
        assert (done["result"]["added"], done["result"]["unchanged"]) == (3, 1)
        assert list(done["result"]["left_out"]) == ["picture: broken.png"]
        found = {one["source"]: one["id"] for one in http.get(f"/v1/collections/{made}").json()["files"]}
        assert list(found) == ["menu.html", "picture: call.wav", "picture: light.png", "picture: menu.html, picture 1"]
        at = f"/v1/collections/{made}/documents"
        said = http.get(f"{at}/{found['picture: light.png']}").json()["text"]
        assert said.startswith("Picture light.png")
        assert "says so.)" in said
        assert http.delete(f"{at}/{found['menu.html']}").json()["deleted"]           # with what was said of its picture
        assert http.get(f"/v1/collections/{made}").json()["documents"] == 2


def test_collections_are_one_persons(live, shop):
    with client(live, BERT) as bert, client(live) as http:
        assert bert.get("/v1/collections").json()["data"] == []
        for answer in (bert.get(f"/v1/collections/{shop}"), bert.delete(f"/v1/collections/{shop}"),
                       bert.post(f"/v1/collections/{shop}/search", json={"question": "hats"}),
                       bert.post("/v1/ask", json={"collection": shop, "question": "hats"})):
            assert answer.status_code == 404
        other = http.post("/v1/collections", json={"name": "Other"}).json()["id"]
        for more, status in (({"fuse": "rrf"}, 200), ({"fuse": "no"}, 400), ({"where": {"kind": "'"}}, 400)):
            asked = {"collection": shop, "question": "hats", **more}
            assert http.post("/v1/ask", json=asked).status_code == status
        for body, status in (({"question": "x", "way": "dense"}, 400), ({"question": "\0 ' \" * ( NEAR"}, 200),
                             ({"question": "x", "where": {"source": "[", "kind": "'"}}, 200), ({"question": ""}, 400)):
            assert http.post(f"/v1/collections/{other}/search", json=body).status_code == status
            assert http.post(f"/v1/collections/{shop}/search", json=body).status_code == (200 if status == 200 or
                                                                                          "way" in body else 400)
        assert http.delete(f"/v1/collections/{other}").json()["deleted"]
        assert http.get(f"/v1/collections/{other}").status_code == 404
        job = http.post("/v1/jobs", json={"kind": "index", "payload": {"collection": other, "files": ["none"]}}).json()
        live.wait_until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] == "failed", 60)
        number = http.get(f"/v1/collections/{shop}").json()["files"][0]["id"]
        assert http.delete(f"/v1/collections/{shop}/documents/{number}").json()["deleted"]
        assert http.get(f"/v1/collections/{shop}").json()["documents"] == 0
