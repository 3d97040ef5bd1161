"""Writing over HTTP on a live server with a tiny model: streams, drafts, files, a batch that outlives its server."""

import io
import json
import time
import zipfile

import httpx
import pytest
from server.live import serving

from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.workspace import Workspace

ANNA, BERT, OLD = "a-key-of-anna-0001", "a-key-of-bert-0002", "a-key-from-before-3"
KEYS = Keys([key_of(ANNA, "anna", "shop", ("generate", "jobs")), key_of(BERT, "bert", "shop", ("generate", "jobs")),
             key_of(OLD, "old", "shop", ("generate",))])
BRIEF = {"topic": "fox", "kind": "post", "length": 20}


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, door=Door(keys=KEYS), workspace=Workspace(tmp_path_factory.mktemp("data"))) as found:
        yield found


def client(live, key=ANNA):
    return httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=60)


def events(answer):
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_and_the_whole_say_the_same(live):
    with client(live) as http:
        whole = http.post("/v1/write", json={"brief": BRIEF, "seed": 4}).json()
        found = events(http.post("/v1/write", json={"brief": BRIEF, "seed": 4, "stream": True}))
        assert [found[0]["type"], found[1]["type"], found[-1]["type"]] == ["outline", "section", "done"]
        assert found[-1]["text"] == whole["text"]
        assert "".join(e["text"] for e in found if e["type"] == "text").strip() in whole["text"]
        assert whole["checks"]["target"] == 20
        assert whole["outline"] == ["fox"]
        listed = http.get("/v1/write/drafts").json()["data"]
        assert [d["id"] for d in listed[:2]] == [found[-1]["draft"], whole["draft"]]


def test_copies_of_the_training_text_that_the_server_was_started_with(chat_checkpoint, tmp_path):
    ours = "It was the best of times, it was the worst of times, it was the age of wisdom"
    (tmp_path / "train.jsonl").write_text(json.dumps({"story": f"Once. {ours}!"}) + '\n{"id": 7}\n')
    with serving(chat_checkpoint, training=(tmp_path / "train.jsonl",)) as found, client(found) as http:
        checks = http.post("/v1/write/check", json={"text": ours, "brief": BRIEF}).json()
        assert [(c["source"], c["n_units"], c["source_start"]) for c in checks["copies"]] == [
            ("train.jsonl, row 1", 18, 6)]
        assert str(tmp_path) not in json.dumps(checks)   # where it lies is the operator's
        assert "row 2: no text in its columns id" in checks["unread"]
        assert "copies" in checks["faults"]
        whole = http.post("/v1/write", json={"brief": BRIEF, "seed": 4}).json()
        assert "row 2" in whole["checks"]["unread"]
        for name in ("training", "streamed"):            # a caller names no path
            refused = http.post("/v1/write/check", json={"text": ours, "brief": BRIEF, name: [str(tmp_path)]})
            assert refused.json()["error"]["code"] == "unknown_parameter"


def test_a_source_that_cannot_be_read_is_the_callers_to_mend(live):
    with client(live) as http:
        file = http.post("/v1/files?name=broken.pdf", content=b"%PDF").json()["id"]
        answer = http.post("/v1/write/check", json={"text": "A fox.", "brief": BRIEF, "sources": [file]})
    assert (answer.status_code, answer.json()["error"]["message"][:30]) == (400, "broken.pdf: is damaged, or no ")


def test_a_reader_who_leaves_frees_the_engine(live):
    free = live.pages_free()
    with client(live) as http, http.stream("POST", "/v1/write", json={
            "brief": {**BRIEF, "length": 400}, "stream": True}) as answer:
        next(answer.iter_lines())
    live.wait_until(lambda: live.pages_free() == free, 20)


def test_versions_are_one_persons(live):
    with client(live) as http, client(live, BERT) as bert, client(live, OLD) as old:
        draft = http.post("/v1/write", json={"brief": BRIEF}).json()["draft"]
        path = f"/v1/write/drafts/{draft}"
        assert http.post(path, json={"text": "mine", "note": "by hand"}).json() == {"version": 2}
        assert [v["note"] for v in http.get(path).json()["versions"]] == ["", "by hand"]
        assert [bert.get(path).status_code, bert.delete(path).status_code, old.get(path).status_code] == [404, 404, 401]
        assert bert.post(path, json={"text": "x"}).status_code == 404
        assert old.post("/v1/write", json={"brief": BRIEF}).json()["draft"] is None
        assert http.delete(path).json()["deleted"]
        assert http.get(path).status_code == 404


def test_revise_check_diff_and_export(live):
    with client(live) as http:
        revised = events(http.post("/v1/write/revise", json={"text": "the fox", "action": "rewrite", "stream": True}))
        assert revised[-1]["text"] == "".join(e["text"] for e in revised[:-1])
        assert revised[-1]["checks"]["length"] > revised[-1]["checks"]["target"] == 0
        assert http.post("/v1/write/revise", json={"text": "the fox", "action": "tone"}).status_code == 400
        book = b"# Book\n\n" + b"a b c d e f g h i j k l"
        source = http.post("/v1/files", params={"name": "book.md"}, content=book).json()
        checks = http.post("/v1/write/check", json={"text": "A b c d e f g h i j k l!", "brief": BRIEF,
                                                    "sources": [source["id"]]}).json()
        assert [(c["source"], c["n_units"]) for c in checks["copies"]] == [("book.md", 12)]
        assert "copies" in checks["faults"]
        assert http.post("/v1/write/diff", json={"old": "a b", "new": "a c"}).json()["changes"] == [
            ["same", "a "], ["removed", "b"], ["added", "c"]]
        for form, begins in (("md", b"# T"), ("html", b"<!doctype"), ("docx", b"PK")):
            answer = http.post("/v1/write/export", json={"text": "# T\n\n<b>", "format": form, "title": "T/<b>海"})
            assert answer.content.startswith(begins)
            assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(("body", "param"), [
    ({"brief": {"topic": " "}}, "brief.topic"), ({"brief": {"topic": "x", "kind": "novel"}}, "brief.kind"),
    ({"brief": {"topic": "x", "points": ["a cat"], "forbidden": ["cat"]}}, "brief"),
    ({"brief": {"topic": "x"}, "sources": ["none"]}, None), ({"brief": {"topic": "x"}, "model": "other"}, None),
])
def test_what_is_wrong_is_said_before_anything_is_written(live, body, param):
    with client(live) as http:
        for stream in (True, False):
            answer = http.post("/v1/write", json={**body, "stream": stream})
            assert answer.status_code in (400, 404)
            assert answer.json()["error"]["param"] == param


def ended(http, job):
    until = time.monotonic() + 60
    while (found := http.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def test_a_batch_goes_on_after_a_restart(chat_checkpoint, tmp_path):
    table = "topic,kind,length\n" + "".join(f"fox {i},post,20\n" for i in range(6)) + ",post,20\n"
    with serving(chat_checkpoint, workspace=Workspace(tmp_path), slow_s=0.05) as live, \
            httpx.Client(base_url=live.url) as http:
        file = http.post("/v1/files", params={"name": "briefs.csv"}, content=table.encode()).json()
        job = http.post("/v1/jobs", json={"kind": "write", "payload": {"file": file["id"], "seed": 3}}).json()["id"]
        live.wait_until(lambda: http.get(f"/v1/jobs/{job}").json()["progress"] > 0, 60)
    kept = next((tmp_path / "write").glob("*.jsonl")).read_text().splitlines()
    assert 0 < len(kept) < 6
    with serving(chat_checkpoint, workspace=Workspace(tmp_path)) as live, httpx.Client(base_url=live.url) as http:
        done = ended(http, job)
        assert (done["state"], done["result"]["texts"]) == ("done", 6)
        assert done["result"]["left_out"][0].startswith("briefs.csv:8: topic")
        lines, archive = (http.get(f"/v1/files/{f['id']}/content").content for f in done["result"]["files"])
        assert lines.decode().splitlines()[:len(kept)] == kept
        assert zipfile.ZipFile(io.BytesIO(archive)).namelist()[0] == "001 fox 0.md"
        bad = http.post("/v1/files", params={"name": "bad.csv"}, content=b"topik\nx\n").json()
        job = http.post("/v1/jobs", json={"kind": "write", "payload": {"file": bad["id"]}}).json()["id"]
        assert "'topic' meant" in ended(http, job)["error"]
    assert list((tmp_path / "write").iterdir()) == []
