"""Conversations, tickets, feedback, figures: what is kept, who sees it, and that it goes when it is deleted."""

import math

import pytest

from ayllu.apps.support.desk import Desk
from ayllu.apps.support.figures import figures, wilson
from ayllu.apps.support.rules import Cost
from ayllu.database import Database
from ayllu.errors import NotFound
from ayllu.principal import Principal

SHOP = Principal("shop", "widget", frozenset({"support"}))
OTHER = Principal("other", "widget", frozenset({"support"}))


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def desk(tmp_path):
    database = Database(tmp_path / "desk.sqlite", (), "a desk")
    yield Desk(database, clock=Clock())
    database.close()


def test_a_conversation(desk):
    talk, secret = desk.begin(SHOP, "customer-1", "en")
    assert len(secret) >= 22                             # 128 bits
    assert desk.known(SHOP, secret) == talk
    desk.add(talk.number, "customer", "text", "Hello 你好")
    answer = desk.add(talk.number, "assistant", "answer", "Hi", {"confidence": 0.5})
    assert [m.text for m in desk.messages(SHOP, talk.number)] == ["Hello 你好", "Hi"]
    assert [m.text for m in desk.messages(SHOP, talk.number, last=1)] == ["Hi"]
    assert desk.messages(SHOP, talk.number, after=answer.number) == []
    assert answer.facts == {"confidence": 0.5}


def test_half_characters_from_a_terminal_become_question_marks(desk):
    talk = desk.begin(SHOP, "x\udcff", "en")[0]
    desk.add(talk.number, "customer", "text", "half \ud800")
    desk.ticket(SHOP, talk.number, "order", "half \ud800")
    assert talk.customer == "x?"
    assert desk.messages(SHOP, talk.number)[0].text == desk.tickets(SHOP)[0].summary == "half ?"


def test_another_tenant_sees_nothing(desk):
    talk, secret = desk.begin(SHOP, "", "en")
    ticket = desk.ticket(SHOP, talk.number, "order", "where is it")
    message = desk.add(talk.number, "assistant", "answer", "x")
    for act in (lambda: desk.conversation(OTHER, talk.number), lambda: desk.known(OTHER, secret),
                lambda: desk.known(SHOP, secret[:-1]), lambda: desk.messages(OTHER, talk.number),
                lambda: desk.set_state(OTHER, talk.number, "closed"), lambda: desk.forget(OTHER, talk.number),
                lambda: desk.ticket(OTHER, talk.number, "x", "y"), lambda: desk.finish(OTHER, ticket.number),
                lambda: desk.thumb(OTHER, talk.number, message.number, 1), lambda: desk.satisfy(OTHER, talk.number, 5)):
        with pytest.raises(NotFound):
            act()
    assert desk.conversations(OTHER) == desk.tickets(OTHER) == desk.unanswered(OTHER) == []
    assert figures(desk, OTHER, Cost())["conversations"] == 0
    assert desk.conversation(SHOP, talk.number).state == "waiting"


def test_tickets(desk):
    (first, _), (second, _) = desk.begin(SHOP, "", "en"), desk.begin(SHOP, "", "zh")
    desk.ticket(SHOP, first.number, "order", "one")
    desk.ticket(SHOP, first.number, "money", "one, again")   # renewed, not doubled
    desk.ticket(SHOP, second.number, "person", "two")
    assert [(t.topic, t.summary) for t in desk.tickets(SHOP)] == [("money", "one, again"), ("person", "two")]
    desk.set_state(SHOP, first.number, "taken", "Ana")
    desk.ticket(SHOP, first.number, "money", "more")
    assert desk.conversation(SHOP, first.number).state == "taken"                # who has it keeps it
    desk.set_state(SHOP, first.number, "closed")
    assert [t.topic for t in desk.tickets(SHOP)] == ["person"]
    assert [t.topic for t in desk.tickets(SHOP, done=True)] == ["money"]
    desk.add(first.number, "customer", "text", "one more thing")
    assert desk.conversation(SHOP, first.number).state == "open"
    desk.finish(SHOP, desk.tickets(SHOP)[0].number)
    assert desk.tickets(SHOP) == []


def test_the_file_holds_no_secret(desk):
    secret = desk.begin(SHOP, "", "en")[1]
    desk.database.close()
    assert not any(secret.encode() in path.read_bytes() for path in desk.database.path.parent.iterdir())


def test_deleted_text_is_gone_from_the_file(desk):
    talk = desk.begin(SHOP, "anna", "en")[0]
    desk.add(talk.number, "customer", "text", "my secret sentence" * 20)
    desk.ticket(SHOP, talk.number, "order", "the secret summary")
    desk.begin(SHOP, "berta", "en")
    desk.forget(SHOP, talk.number)
    assert len(desk.conversations(SHOP)) == 1
    desk.database.close()
    assert not any(b"secret" in path.read_bytes() for path in desk.database.path.parent.iterdir())


def test_old_conversations_expire(desk):
    old = desk.begin(SHOP, "", "en")[0]
    desk.clock.now += 91 * 86400
    new = desk.begin(SHOP, "", "en")[0]
    assert desk.expire(90) == 1
    assert [c.number for c in desk.conversations(SHOP)] == [new.number]
    with pytest.raises(NotFound):
        desk.conversation(SHOP, old.number)
    desk.clock.now = Clock.now


def test_unanswered_questions(desk):
    talk = desk.begin(SHOP, "", "en")[0]
    desk.add(talk.number, "customer", "text", "Do you sell bicycles?")
    desk.add(talk.number, "assistant", "unknown", "No idea", {"confidence": 0.1})
    assert desk.unanswered(SHOP)[0]["question"] == "Do you sell bicycles?"
    assert desk.unanswered(SHOP)[0]["confidence"] == 0.1


def test_figures(desk):
    """Four conversations: answered, unknown, handed over, greeted only."""
    talks = [desk.begin(SHOP, "", "en")[0].number for _ in range(4)]
    for number, kind, ms in zip(talks, ("answer", "unknown", "hand_over", "greeting"), (10, 20, 30, 1), strict=True):
        desk.add(number, "customer", "text", "?")
        last = desk.add(number, "assistant", kind, "!", {"ms": ms, "prompt_tokens": 100, "n_tokens": 50})
    desk.ticket(SHOP, talks[2], "order", "s")
    desk.clock.now += 60
    desk.add(talks[2], "operator", "text", "Here I am")
    desk.thumb(SHOP, talks[3], last.number, -1)
    desk.satisfy(SHOP, talks[0], 5)
    desk.satisfy(SHOP, talks[1], 2)
    found = figures(desk, SHOP, Cost(per_million_tokens=10, person_minutes=5))
    assert (found["conversations"], found["with_questions"], found["deflected"]) == (4, 3, 2)
    assert found["deflection"] == pytest.approx(2 / 3, abs=1e-4)
    assert (found["answer"], found["unknown"], found["hand_over"]) == (1, 1, 1)
    assert (found["satisfaction"], found["satisfaction_n"], found["thumbs_down"]) == (3.5, 2, 1)
    assert (found["tokens"], found["cost"], found["saved_minutes"]) == (600, 0.006, 10)
    assert found["person_s_median"] == 60
    assert (found["answer_ms_median"], found["answer_ms_95"]) == (20, 30)
    desk.clock.now = Clock.now


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (77, 140)])
def test_wilsons_interval_solves_its_equation(k, n):
    """Its ends are the shares p from which k/n is just z standard errors away: (k/n - p)^2 = z^2 p (1 - p) / n."""
    for p in wilson(k, n):
        assert (k / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=2e-5)
    assert wilson(0, 0) is None
    assert not math.isnan(wilson(1, 1)[0])
