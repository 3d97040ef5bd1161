"""Jobs: states, claims by several processes, crashes and recovery, migrations, one owner's view."""

import sqlite3
import stat
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu import jobs as jobs_module
from ayllu.errors import ClaimLost, DataError, JobCancelled, NotAllowed, RequestError
from ayllu.jobs import Claim, Jobs, work_once
from ayllu.principal import LOCAL, Principal

ANNA = Principal("shop", "anna", frozenset({"jobs"}))
BERT = Principal("shop", "bert", frozenset({"jobs"}))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Jobs:
    return Jobs(tmp_path / "jobs.db", stale_s=60, clock=clock)


def test_a_job_from_queue_to_result(jobs: Jobs):
    first, second = jobs.submit(ANNA, "count", {"to": 3, "text": "数"}), jobs.submit(ANNA, "count")
    assert jobs.get(ANNA, first).state == "queued"
    claim = jobs.claim("w1")
    assert claim is not None
    assert (claim.job.id, claim.job.payload, claim.job.attempts) == (first, {"to": 3, "text": "数"}, 1)
    claim.beat(0.5, resume={"at": 2})
    assert (jobs.get(ANNA, first).progress, jobs.get(ANNA, first).resume) == (0.5, {"at": 2})
    jobs.finish(claim, [1, 2, 3])
    job = jobs.get(ANNA, first)
    assert (job.state, job.result, job.progress, job.resume) == ("done", [1, 2, 3], 1.0, None)
    assert [j.id for j in jobs.jobs_of(ANNA)] == [second, first]
    assert [j.id for j in jobs.jobs_of(ANNA, state="done")] == [first]


def test_kinds_are_claimed_by_who_can_do_them(jobs: Jobs):
    jobs.submit(ANNA, "train")
    index = jobs.submit(ANNA, "index")
    assert jobs.claim("w", kinds=("translate",)) is None
    assert jobs.claim("w", kinds=()) is None
    claim = jobs.claim("w", kinds=("index", "translate"))
    assert claim is not None
    assert claim.job.id == index


def test_nobody_sees_another_owners_job(jobs: Jobs):
    job = jobs.submit(ANNA, "secret")
    stranger = Principal("other", "anna", frozenset({"jobs"}))
    for other in (BERT, stranger, LOCAL):
        assert jobs.jobs_of(other) == []
        for act in (jobs.get, jobs.cancel, jobs.delete):
            with pytest.raises(RequestError, match="there is no job"):
                act(other, job)
    with pytest.raises(NotAllowed, match="lacks the scope 'jobs'"):
        jobs.submit(Principal("shop", "carl"), "count")
    with pytest.raises(NotAllowed):
        Principal("", "x")


def test_cancel_queued_running_and_finished(jobs: Jobs):
    a, b = jobs.submit(ANNA, "x"), jobs.submit(ANNA, "x")
    assert jobs.cancel(ANNA, a).state == "cancelled"
    claim = jobs.claim("w")
    assert claim is not None
    assert claim.job.id == b
    assert jobs.cancel(ANNA, b).state == "running"
    with pytest.raises(JobCancelled):
        claim.beat(0.1)
    jobs.stopped(claim)
    assert jobs.get(ANNA, b).state == "cancelled"
    assert jobs.cancel(ANNA, a).state == "cancelled"
    jobs.delete(ANNA, a)
    with pytest.raises(RequestError):
        jobs.get(ANNA, a)


def test_delete_refuses_unfinished_jobs(jobs: Jobs):
    job = jobs.submit(ANNA, "x")
    with pytest.raises(RequestError, match="is queued"):
        jobs.delete(ANNA, job)


def test_a_silent_worker_loses_its_job_and_its_successor_resumes(jobs: Jobs, clock: Clock):
    job = jobs.submit(ANNA, "x", max_attempts=2)
    late = jobs.claim("w1")
    assert late is not None
    late.beat(0.3, resume={"at": 7})
    clock.now += 59
    assert jobs.claim("w2") is None
    clock.now += 2
    successor = jobs.claim("w2")
    assert successor is not None
    assert (successor.job.resume, successor.job.attempts) == ({"at": 7}, 2)
    for act in (late.beat, lambda: jobs.finish(late), lambda: jobs.fail(late, "no"), lambda: jobs.give_back(late)):
        with pytest.raises(ClaimLost):
            act()
    clock.now += 61
    assert jobs.claim("w3") is None                      # two claims were allowed, both workers died
    assert jobs.get(ANNA, job).state == "failed"
    assert "died 2 times" in str(jobs.get(ANNA, job).error)


def test_a_dead_workers_cancelled_job_is_cancelled(jobs: Jobs, clock: Clock):
    job = jobs.submit(ANNA, "x")
    jobs.claim("w1")
    jobs.cancel(ANNA, job)
    clock.now += 61
    assert jobs.claim("w2") is None
    assert jobs.get(ANNA, job).state == "cancelled"


def test_give_back_does_not_use_up_an_attempt(jobs: Jobs):
    job = jobs.submit(ANNA, "x", max_attempts=1)
    for _ in range(3):
        claim = jobs.claim("w")
        assert claim is not None
        jobs.give_back(claim)
    assert (jobs.get(ANNA, job).state, jobs.get(ANNA, job).attempts) == ("queued", 0)


def test_work_once_records_every_outcome(tmp_path: Path):
    jobs = Jobs(tmp_path / "jobs.db", stale_s=0.3)

    def slow(claim: Claim) -> str:
        time.sleep(0.8)                                  # longer than stale_s: the thread must give signs of life
        assert jobs.claim("thief", kinds=("slow",)) is None
        return "slept"

    def cancelled(claim: Claim) -> None:
        jobs.cancel(ANNA, claim.job.id)
        claim.beat()

    def interrupted(claim: Claim) -> None:
        raise KeyboardInterrupt

    ids = {kind: jobs.submit(ANNA, kind) for kind in ("slow", "broken", "cancelled", "interrupted")}
    handlers = {"slow": slow, "broken": lambda claim: 1 / 0, "cancelled": cancelled}
    while work_once(jobs, "w", handlers):
        pass
    with pytest.raises(KeyboardInterrupt):
        work_once(jobs, "w", {"interrupted": interrupted})
    found = {kind: jobs.get(ANNA, job) for kind, job in ids.items()}
    assert {kind: job.state for kind, job in found.items()} == {
        "slow": "done", "broken": "failed", "cancelled": "cancelled", "interrupted": "queued"}
    assert found["slow"].result == "slept"
    assert found["broken"].error == "ZeroDivisionError: division by zero"


def test_content_passes_through_the_codec_and_nothing_else_holds_it(tmp_path: Path):
    class Flip:
        def encode(self, plain: bytes, about: str) -> bytes:
            return about.encode() + b"|" + bytes(b ^ 0x55 for b in plain)

        def decode(self, kept: bytes, about: str) -> bytes:
            place, _, body = kept.partition(b"|")
            assert place.decode() == about
            return bytes(b ^ 0x55 for b in body)

    jobs = Jobs(tmp_path / "jobs.db", codec=Flip())
    jobs.submit(ANNA, "x", "a secret payload")
    claim = jobs.claim("w")
    assert claim is not None
    claim.beat(resume="a secret resume")
    jobs.fail(claim, "a secret error")
    assert jobs.get(ANNA, claim.job.id).error == "a secret error"
    jobs.close()
    kept = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"a secret" not in kept
    assert stat.S_IMODE((tmp_path / "jobs.db").stat().st_mode) == 0o600


def test_only_json_goes_in(jobs: Jobs):
    for bad in (object(), float("nan"), {1, 2}):
        with pytest.raises(DataError, match="must be a JSON value"):
            jobs.submit(ANNA, "x", bad)


def test_migration_keeps_rows_and_newer_files_are_refused(tmp_path: Path, monkeypatch):
    old = Jobs(tmp_path / "jobs.db")
    job = old.submit(ANNA, "x", 5)
    old.close()
    monkeypatch.setattr(jobs_module, "MIGRATIONS", (*jobs_module.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN note TEXT;"))
    new = Jobs(tmp_path / "jobs.db")
    assert new.get(ANNA, job).payload == 5
    assert new._db.read("SELECT note FROM jobs")[0][0] is None
    new.close()
    monkeypatch.undo()
    with pytest.raises(DataError, match="schema version 2, this Ayllu knows up to 1"):
        Jobs(tmp_path / "jobs.db")


def test_a_broken_migration_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch):
    Jobs(tmp_path / "jobs.db").close()
    broken = "ALTER TABLE jobs ADD COLUMN note TEXT; ALTER TABLE missing ADD COLUMN x TEXT;"
    monkeypatch.setattr(jobs_module, "MIGRATIONS", (*jobs_module.MIGRATIONS, broken))
    with pytest.raises(DataError, match="no such table"):
        Jobs(tmp_path / "jobs.db")
    with sqlite3.connect(tmp_path / "jobs.db") as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1
        assert "note" not in [row[1] for row in db.execute("PRAGMA table_info(jobs)")]


def test_a_foreign_file_is_refused(tmp_path: Path):
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DataError, match="move it away"):
        Jobs(tmp_path / "jobs.db")


STEPS = st.lists(st.tuples(st.sampled_from(["submit", "claim", "beat", "finish", "fail", "give_back", "cancel", "stop",
                                            "wait", "reopen"]), st.integers(0, 5)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_random_traces_agree_with_a_plain_model(steps, tmp_path_factory):
    """A dictionary plays the queue; after each step SQLite must say the same, and at the end every job must end."""
    path, clock = tmp_path_factory.mktemp("trace") / "jobs.db", Clock()
    jobs = Jobs(path, stale_s=60, clock=clock)
    model: dict[str, dict] = {}                          # id -> state, attempts, lease, beat, asked; in queue order
    claims: list[Claim] = []

    def recover() -> None:
        for job in model.values():
            if job["state"] == "running" and clock.now - job["beat"] > 60:
                job["state"] = "cancelled" if job["asked"] else "failed" if job["attempts"] >= 2 else "queued"
                job["lease"] = None

    def check() -> None:
        assert {j.id: (j.state, j.attempts) for j in jobs.jobs_of(ANNA)} == {
            i: (j["state"], j["attempts"]) for i, j in model.items()}

    def ends(act, claim: Claim, state: str) -> None:
        job = model[claim.job.id]
        if job["lease"] != claim.lease:
            with pytest.raises(ClaimLost):
                act(claim)
            return
        act(claim)
        if act == jobs.give_back and not job["asked"]:
            job["attempts"] -= 1
        job.update(state="cancelled" if act == jobs.give_back and job["asked"] else state, lease=None)

    for verb, n in [*steps, *[("drain", 0)] * 40]:
        if verb == "submit":
            model[jobs.submit(ANNA, "x", n, max_attempts=2)] = {
                "state": "queued", "attempts": 0, "lease": None, "beat": 0.0, "asked": False}
        elif verb in ("claim", "drain"):
            recover()
            expected = next((i for i, j in model.items() if j["state"] == "queued"), None)
            claim = jobs.claim(f"w{n}")
            assert (claim.job.id if claim else None) == expected
            if claim:
                job = model[claim.job.id]
                job.update(state="running", attempts=job["attempts"] + 1, lease=claim.lease, beat=clock.now)
                claims.append(claim)
            clock.now += 61 * (verb == "drain")          # every worker dies: nothing may stay for ever
        elif verb == "wait":
            clock.now += 15 * n
        elif verb == "reopen":
            jobs.close()
            jobs = Jobs(path, stale_s=60, clock=clock)
            claims = [Claim(jobs, c.job, c.lease) for c in claims]
        elif verb == "cancel" and model:
            job_id = list(model)[n % len(model)]
            jobs.cancel(ANNA, job_id)
            job = model[job_id]
            job["asked"] = job["asked"] or job["state"] == "running"
            job["state"] = "cancelled" if job["state"] == "queued" else job["state"]
        elif claims:
            claim = claims[n % len(claims)]
            job = model[claim.job.id]
            if verb == "beat" and job["lease"] != claim.lease:
                with pytest.raises(ClaimLost):
                    claim.beat()
            elif verb == "beat":
                job["beat"] = clock.now
                if job["asked"]:
                    with pytest.raises(JobCancelled):
                        claim.beat()
                else:
                    claim.beat(n / 5)
            else:
                act, state = {"finish": (jobs.finish, "done"), "fail": (partial(jobs.fail, error="no"), "failed"),
                              "give_back": (jobs.give_back, "queued"), "stop": (jobs.stopped, "cancelled")}[verb]
                ends(act, claim, state)
        check()
    assert {j["state"] for j in model.values()} <= {"done", "failed", "cancelled"}
    jobs.close()


def test_recover_gives_back_what_runs_at_once(jobs: Jobs):
    job = jobs.submit(ANNA, "count")
    claim = jobs.claim("w1")
    jobs.beat(claim, 0.5, {"at": 2})
    assert jobs.claim("w2") is None
    jobs.recover()
    again = jobs.claim("w2")
    assert (again.job.id, again.job.resume, again.job.attempts) == (job, {"at": 2}, 2)
    with pytest.raises(ClaimLost):
        jobs.beat(claim)


def test_jobs_of_one_kind(jobs: Jobs):
    first = jobs.submit(ANNA, "count")
    jobs.submit(ANNA, "other")
    assert [job.id for job in jobs.jobs_of(ANNA, kind="count")] == [first]
