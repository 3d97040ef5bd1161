"""Posts over HTTP: a few at once, a file as a job that outlives its server."""

import time

import httpx
import pytest
from server.live import serving

from ayllu.apps.analyse import run as running
from ayllu.apps.analyse.config import Analysis
from ayllu.apps.analyse.posts import Post
from ayllu.apps.analyse.reading import Reader
from ayllu.apps.analyse.run import SAMPLE
from ayllu.server.workspace import Workspace


@pytest.fixture(scope="module")
def live(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path_factory.mktemp("data"))) as found:
        yield found


@pytest.fixture
def http(live):
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client


def done(http, job):
    for _ in range(600):
        found = http.get(f"/v1/jobs/{job['id']}").json()
        if found["state"] in ("done", "failed"):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_a_few_posts_at_once(http):
    answer = http.post("/v1/analyse", json={"brands": ["Orlo"], "posts": [
        "I love the Orlo, says @kim_9", {"text": "电池太差了", "id": "x", "time": "2026-01-02", "group": "shop"}]})
    one, other = answer.json()["posts"]
    assert answer.json()["unmeasured"] == ["emotions", "spam", "insults"]
    assert (one["sentiment"], one["brands"], other["sentiment"], other["id"]) == ("positive", ["Orlo"], "negative", "x")
    assert "kim_9" not in one["text"]
    assert "[user-" in one["text"]
    assert [one["text"][a:b] for a, b, _ in one["why"]] == ["love"]
    assert other["aspects"]["battery"] < 0.5


def test_labels_of_ones_own_are_ranked(http, tmp_path):
    """As `ayllu analyse --labels` does, for a few posts and for a job."""
    texts, labels = ["where is my parcel?", "what a lovely shop"], {"kind": ["question", "praise"]}
    answer = http.post("/v1/analyse", json={"posts": texts, "labels": labels}).json()
    rows = Reader(Analysis(zero_shot=labels))([Post(str(i), text) for i, text in enumerate(texts)])
    assert [post["labels"]["kind"] for post in answer["posts"]] == [row["labels"]["kind"] for row in rows]
    assert "kind" in answer["told"]
    job = http.post("/v1/jobs", json={"kind": "analyse", "payload": {"file": "sample", "labels": labels}}).json()
    table = http.get(f"/v1/files/{done(http, job)['result']['files'][1]['id']}/content").text
    assert "kind" in table.splitlines()[0]
    for bad in (["one"], ["one", "one"]):
        answer = http.post("/v1/analyse", json={"posts": texts, "labels": {"kind": bad}})
        assert answer.status_code == 400
        assert "kind" in answer.text


@pytest.mark.parametrize("posts", [[], [""], [" "], [{"text": "x" * 30_000}], ["a"] * 201, [{"body": "a"}], "a"])
def test_what_cannot_be_read_is_the_callers_fault(http, posts):
    answer = http.post("/v1/analyse", json={"posts": posts})
    assert answer.status_code in (400, 422)
    assert "post" in answer.text


def test_a_file_is_a_job(http):
    file = http.post("/v1/files", content=SAMPLE.read_bytes(), params={"name": "talk.csv"}).json()
    job = http.post("/v1/jobs", json={"kind": "analyse", "payload": {"file": file["id"], "brands": ["Orlo"]}}).json()
    result = done(http, job)["result"]
    assert result["posts"] == 394
    assert [made["name"] for made in result["files"]] == ["talk.report.html", "talk.posts.csv", "talk.posts.jsonl",
                                                          "talk.summary.json"]
    page = http.get(f"/v1/files/{result['files'][0]['id']}/content").text
    assert '<section id="law">' in page
    assert any(change["of"] == "all" for change in result["trends"]["changes"])


def test_a_file_that_holds_no_posts_fails_with_the_reason(http):
    file = http.post("/v1/files", content=b"a,b\n1,2\n", params={"name": "other.csv"}).json()
    job = http.post("/v1/jobs", json={"kind": "analyse", "payload": {"file": file["id"]}}).json()
    found = done(http, job)
    assert found["state"] == "failed"
    assert "hold the texts" in found["error"]


@pytest.mark.parametrize("kind", ["analyse", "write"])
def test_a_failed_job_calls_a_file_what_its_owner_calls_it(http, kind):
    file = http.post("/v1/files", content=b"%PDF-1.7", params={"name": "the posts.pdf"}).json()
    job = http.post("/v1/jobs", json={"kind": kind, "payload": {"file": file["id"]}}).json()
    assert done(http, job)["error"].startswith("DataError: the posts.pdf: don't know how to read .pdf")


def test_rows_that_are_left_out_name_the_upload(http):
    file = http.post("/v1/files", content=b"good\n\xe9\xff\n", params={"name": "posts.txt"}).json()
    job = http.post("/v1/jobs", json={"kind": "analyse", "payload": {"file": file["id"]}}).json()
    assert done(http, job)["result"]["rejects"][0]["file"] == "posts.txt"


def test_a_job_goes_on_after_its_server_ended(chat_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CHUNK", 40)
    read, together = Reader.__call__, []

    def slowly(self, posts):
        time.sleep(0.1)
        together.append(len(posts))
        return read(self, posts)

    monkeypatch.setattr(Reader, "__call__", slowly)
    with serving(chat_checkpoint, workspace=Workspace(tmp_path)) as live, httpx.Client(base_url=live.url) as http:
        job = http.post("/v1/jobs", json={"kind": "analyse", "payload": {"file": "sample"}}).json()
        live.wait_until(lambda: len(together) > 2, 60)
    assert sum(together) < 394
    with serving(chat_checkpoint, workspace=Workspace(tmp_path)) as live, httpx.Client(base_url=live.url) as http:
        assert done(http, job)["result"]["posts"] == 394
    assert sum(together) <= 394 + 40                     # the chunk that the server's end may have met is read again
    assert not list((tmp_path / "analyse").iterdir())
