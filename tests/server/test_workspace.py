"""Files and jobs over HTTP, on a live server: owners, limits, names that lie, work that outlives its server."""

import hashlib
import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.live import serving

from ayllu.errors import ConfigError, NotFound, RequestError
from ayllu.principal import LOCAL, Principal
from ayllu.server import kinds
from ayllu.server.filestore import FileStore, plain_name
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.kinds import Kind
from ayllu.server.limits import Limits
from ayllu.server.schema.base import Body
from ayllu.server.uploads import saved_as
from ayllu.server.workspace import Workspace

ANNA, BERT, OLD = "a-key-of-anna-0001", "a-key-of-bert-0002", "a-key-from-before-3"
KEYS = Keys([key_of(ANNA, "anna", "shop", ("generate", "jobs")), key_of(BERT, "bert", "shop", ("generate", "jobs")),
             key_of(OLD, "old", "shop", ("generate",))])


class Count(Body):
    """Payload of the tests' own kind."""

    to: int
    file: str | None = None


class Counting:
    """Counts up; `gate` holds it at a number until it is let on."""

    def __init__(self):
        self.begun, self.go, self.starts = threading.Event(), threading.Event(), []

    def run(self, work):
        at = (work.resume or {"at": 0})["at"]
        self.starts.append(at)
        while at < work.payload["to"]:
            at += 1
            work.beat(at / work.payload["to"], {"at": at})
            if at == 2:
                self.begun.set()
                while not self.go.wait(0.02):
                    work.beat()
        if at == 13:
            raise RequestError("thirteen is no number")
        if at == 14:
            raise ZeroDivisionError("a secret place")
        text = work.files.path(work.payload["file"]).read_bytes() if work.payload["file"] else b"nothing"
        return {"at": at, "file": work.files.save("result.txt", text.upper())}


@pytest.fixture
def counting(monkeypatch):
    found = Counting()
    monkeypatch.setitem(kinds.KINDS, "count", Kind(Count, found.run))
    return found


@pytest.fixture
def live(chat_checkpoint, tmp_path, counting):
    with serving(chat_checkpoint, door=Door(keys=KEYS), limits=Limits(upload_bytes=3 * 2**20),
                 workspace=Workspace(tmp_path / "data", kept_bytes=4 * 2**20)) as found:
        yield found


def client(live, key=ANNA):
    return httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30)


def ended(http, job, state="done"):
    until = time.monotonic() + 30
    while (found := http.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, found
        time.sleep(0.02)
    assert found["state"] == state, found
    return found


def test_files_come_go_and_belong_to_one_person(live):
    data = bytes(range(256)) * 4096                      # 1 MiB
    with client(live) as anna, client(live, BERT) as bert, client(live, OLD) as old:
        raw = anna.post("/v1/files", params={"name": "../etc/数据 1.csv"}, content=data).json()
        form = anna.post("/v1/files", files={"file": ("<b>page</b>.html", data, "text/html")}).json()
        head = anna.post("/v1/files", headers={"x-file-name": "%E6%95%B0.txt"}, content=b"x").json()
        assert (raw["name"], raw["bytes"]) == ("数据 1.csv", len(data))
        assert (form["name"], head["name"]) == ("b>.html", "数.txt")
        assert [one["id"] for one in anna.get("/v1/files").json()["data"]] == [head["id"], form["id"], raw["id"]]

        got = anna.get(f"/v1/files/{form['id']}/content")
        assert hashlib.sha256(got.content).digest() == hashlib.sha256(data).digest()
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-disposition"].startswith("attachment; ")
        assert "sandbox" in got.headers["content-security-policy"]

        for path in (f"/v1/files/{raw['id']}", f"/v1/files/{raw['id']}/content"):
            assert bert.get(path).status_code == 404
            assert old.get(path).status_code == 401
        assert bert.delete(f"/v1/files/{raw['id']}").status_code == 404
        assert bert.get("/v1/files").json()["data"] == []
        assert httpx.get(f"{live.url}/v1/files").status_code == 401

        assert anna.delete(f"/v1/files/{raw['id']}").json() == {"id": raw["id"], "deleted": True}
        assert anna.get(f"/v1/files/{raw['id']}/content").status_code == 404


@pytest.mark.parametrize(("options", "status", "says"), [
    ({"params": {"name": "a.txt"}, "content": b""}, 400, "empty"),
    ({"content": b"x"}, 400, "no name"),
    ({"files": {"other": ("a.txt", b"x")}}, 400, "field `file`"),
    ({"data": {"file": "text"}, "files": {"b": ("", b"")}}, 400, "field `file`"),
    ({"headers": {"content-type": "multipart/form-data"}, "content": b"--x"}, 400, ""),
    ({"params": {"name": "a.txt"}, "content": b"x" * (3 * 2**20 + 1)}, 413, "larger than"),
    ({"params": {"name": "a.txt"}, "content": (b"x" * 2**20 for _ in range(4))}, 413, "larger than"),
])
def test_a_bad_upload_is_told_and_leaves_nothing(live, options, status, says):
    with client(live) as http:
        answer = http.post("/v1/files", **options)
        assert answer.status_code == status
        assert says in answer.json()["error"]["message"]
        assert http.get("/v1/files").json()["data"] == []
    assert list((live.served.workspace.folder / "files").glob("*.part")) == []


def test_a_person_keeps_so_much_and_no_more(live):
    with client(live) as http:
        for status in (200, 200, 413):
            assert http.post("/v1/files", params={"name": "a"}, content=b"x" * (2 * 2**20 - 8)).status_code == status
        assert "delete" in http.post("/v1/files", params={"name": "a"}, content=b"x" * 99).json()["error"]["message"]


def test_other_bodies_keep_their_own_limit(live):
    with client(live) as http:
        assert http.post("/v1/jobs", content=b" " * (8 * 2**20 + 1)).status_code == 413


def test_a_job_from_its_submission_to_its_file(live, counting):
    counting.go.set()
    with client(live) as http, client(live, BERT) as bert:
        upload = http.post("/v1/files", params={"name": "in.txt"}, content=b"words").json()
        job = http.post("/v1/jobs", json={"kind": "count", "payload": {"to": 3, "file": upload["id"]},
                                          "label": "数到三"}).json()
        assert (job["state"], job["label"]) == ("queued", "数到三")
        done = ended(http, job["id"])
        assert (done["progress"], done["result"]["at"]) == (1, 3)
        made = done["result"]["file"]
        assert http.get(f"/v1/files/{made['id']}/content").content == b"WORDS"
        assert http.get("/v1/jobs", params={"kind": "count"}).json()["data"][0]["result"] is None
        assert http.get("/v1/jobs", params={"kind": "other"}).json()["data"] == []

        assert bert.get(f"/v1/jobs/{job['id']}").status_code == 404
        assert bert.delete(f"/v1/jobs/{job['id']}").status_code == 404
        assert bert.get("/v1/jobs").json()["data"] == []
        theirs = bert.post("/v1/jobs", json={"kind": "count", "payload": {"to": 1, "file": upload["id"]}}).json()
        assert "no file" in ended(bert, theirs["id"], "failed")["error"]

        assert http.delete(f"/v1/jobs/{job['id']}").json()["deleted"]
        assert http.get(f"/v1/files/{made['id']}").status_code == 404
        assert http.get(f"/v1/files/{upload['id']}").status_code == 200


@pytest.mark.parametrize(("body", "param"), [
    ({"kind": "nothing"}, "kind"), ({"kind": "count"}, "payload.to"),
    ({"kind": "count", "payload": {"to": "many"}}, "payload.to"),
    ({"kind": "count", "payload": {"to": 1, "more": 2}}, "payload.more"),
])
def test_a_bad_job_is_refused_before_it_is_queued(live, body, param):
    with client(live) as http:
        answer = http.post("/v1/jobs", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert http.get("/v1/jobs").json()["data"] == []


def test_a_failed_job_says_why_but_not_what_nobody_foresaw(live, counting):
    counting.go.set()
    with client(live) as http:
        jobs = [http.post("/v1/jobs", json={"kind": "count", "payload": {"to": to}}).json()["id"] for to in (13, 14)]
        assert "thirteen is no number" in ended(http, jobs[0], "failed")["error"]
        assert "secret" not in ended(http, jobs[1], "failed")["error"]


def test_a_running_job_is_cancelled_then_deleted(live, counting):
    with client(live) as http:
        job = http.post("/v1/jobs", json={"kind": "count", "payload": {"to": 9}}).json()["id"]
        assert counting.begun.wait(20)
        assert http.delete(f"/v1/jobs/{job}").json() == {"id": job, "deleted": False}
        ended(http, job, "cancelled")
        assert http.delete(f"/v1/jobs/{job}").json() == {"id": job, "deleted": True}
        assert http.get(f"/v1/jobs/{job}").status_code == 404


def test_a_job_goes_on_where_it_was_when_the_server_stopped(chat_checkpoint, tmp_path, counting):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path)) as live:
        job = httpx.post(f"{live.url}/v1/jobs", json={"kind": "count", "payload": {"to": 4}}).json()["id"]
        assert counting.begun.wait(20)
    counting.go.set()
    with serving(chat_checkpoint, workspace=Workspace(tmp_path)) as live, httpx.Client(base_url=live.url) as http:
        assert ended(http, job)["result"]["at"] == 4
    assert counting.starts == [0, 2]


def test_a_server_without_a_folder_says_so(chat_checkpoint):
    with serving(chat_checkpoint) as live:
        about = httpx.get(f"{live.url}/v1/workspace").json()
        assert (about["keeps"], about["kinds"], about["is_small"]) == (False, [], True)
        for path in ("/v1/files", "/v1/jobs"):
            assert "--data" in httpx.get(live.url + path).json()["error"]["message"]


def test_one_server_works_in_a_folder(tmp_path):
    first = Workspace(tmp_path)
    with pytest.raises(ConfigError, match="another ayllu serve"):
        Workspace(tmp_path)
    first.close()
    Workspace(tmp_path).close()
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(ConfigError, match="--data"):
        Workspace(tmp_path / "plain")


def test_parts_of_a_killed_server_are_removed_and_files_stay(tmp_path):
    store = FileStore(tmp_path, 100)
    part = store.part()
    part.write_bytes(b"whole")
    kept = store.keep(LOCAL, "a.txt", part)
    store.part().write_bytes(b"half")
    store.close()
    again = FileStore(tmp_path, 100)
    assert again.files_of(LOCAL) == [kept]
    assert again.path(kept).read_bytes() == b"whole"
    assert list(tmp_path.glob("*.part")) == []
    with pytest.raises(NotFound):
        again.get(Principal("local", "other", frozenset({"*"})), kept.id)


@given(st.text(max_size=400))
def test_no_name_is_a_path_or_breaks_a_header(name):
    plain = plain_name(name)
    assert plain
    assert plain not in (".", "..")
    assert len(plain) <= 200
    assert not set(plain) & set("/\\")
    assert plain.isprintable()
    value = saved_as(plain)["content-disposition"]
    assert value.isascii()
    assert value.count('"') == 2
