"""What becomes of a message: answered from the pages, handed over, declined, or honestly not known."""

import pytest
from apps.scripted import ScriptedSpeaker
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.apps.collection import Collection
from ayllu.apps.support.desk import Desk
from ayllu.apps.support.pages import QUESTIONS, Pages, sample
from ayllu.apps.support.questions import given_of, measure, read_questions
from ayllu.apps.support.rules import Rules
from ayllu.apps.support.service import Support
from ayllu.apps.support.wording import Citation, cite, is_supported, shown
from ayllu.database import Database
from ayllu.errors import DataError, RequestError
from ayllu.principal import Principal

CUSTOMER = Principal("shop", "widget", frozenset({"support"}))
MONDAY = 1_767_607_200.0                                 # 2026-01-05, 10:00 UTC: open
SUNDAY = MONDAY - 86_400


@pytest.fixture
def desk(tmp_path):
    database = Database(tmp_path / "desk.sqlite", (), "a desk")
    yield Desk(database)
    database.close()


@pytest.fixture
def service(shop, desk):
    return Support(*shop, desk, clock=lambda: MONDAY)


def say(service, number, text):
    return service.say(CUSTOMER, number, text)[-1]


@pytest.mark.parametrize(("question", "source", "heading", "part"), [
    ("When do I get my money back?", "en/returns.md", "When you get your money", "5 working days"),
    ("how much does the crane mug cost", "en/products.csv", "Crane mug", "price in euros: 16.00"),
    ("do you shipp to Norwey", "en/shipping.md", "Countries we ship to", "Norway"),
    ("怎样退货？", "zh/returns.md", "怎样退货", "退货单"),
    ("纸鹤台灯可以调光吗", "zh/products.csv", "纸鹤台灯", "五档调光")])
def test_answers_from_the_pages(service, question, source, heading, part):
    draft = service.answer(question)
    assert draft.kind == "answer"
    first = draft.citations[0]
    assert (first.source, first.heading) == (source, heading)
    assert part in draft.text
    stored = {d.source: d.id for d in service.pages.collection.documents()}
    for citation in draft.citations:
        assert service.pages.collection.text(stored[citation.source], citation.start, citation.end) == citation.quote


def test_a_conversation_with_a_hand_over(service, desk):
    number = service.begin(CUSTOMER)[0].number
    assert say(service, number, "Hi").kind == "greeting"
    assert say(service, number, "How much is shipping?").kind == "answer"
    unknown = say(service, number, "Do you sell bicycles?")
    assert unknown.kind == "unknown"
    assert unknown.facts["citations"] == []
    assert desk.tickets(CUSTOMER) == []                  # it is offered, not done
    over = say(service, number, "yes please")
    assert over.kind == "hand_over"
    assert "People are here now" in over.text
    ticket = desk.tickets(CUSTOMER)[0]
    assert ticket.number == over.facts["ticket"]
    for part in ("How much is shipping?", "en/shipping.md › What shipping costs", "bicycles"):
        assert part in ticket.summary
    desk.set_state(CUSTOMER, number, "taken", "Ana")
    assert [m.role for m in service.say(CUSTOMER, number, "How long is the warranty?")] == ["customer"]
    desk.set_state(CUSTOMER, number, "open")
    assert say(service, number, "How long is the warranty?").kind == "answer"


def test_what_nobody_knows_twice_goes_to_a_person(service, desk):
    number = service.begin(CUSTOMER)[0].number
    assert say(service, number, "Do you sell bicycles?").kind == "unknown"
    assert say(service, number, "And motorcycles?").kind == "hand_over"
    assert desk.tickets(CUSTOMER)[0].topic == "unanswered"
    number = service.begin(CUSTOMER)[0].number               # in the first language of the rules, until somebody writes
    say(service, number, "转人工")
    assert {"主题：要求人工", "Topic: unanswered"} == {t.summary.splitlines()[0] for t in desk.tickets(CUSTOMER)}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([q.text for q in read_questions(sample() / QUESTIONS) if q.kind == "answer"]),
       st.sampled_from(["I want to talk to a human.", "转人工", "my lawyer will call", "请删除我的个人信息"]),
       st.booleans())
def test_rules_go_before_the_pages(shop, question, order, is_first):
    """Whatever the pages could answer, a message with an order of the rules goes to a person."""
    text = f"{order} {question}" if is_first else f"{question} {order}"
    draft = Support(*shop, None, clock=lambda: MONDAY).answer(text)
    assert draft.kind == "hand_over"
    assert draft.citations == ()


def test_a_yes_that_answers_nothing_hands_nothing_over(service, desk):
    assert say(service, service.begin(CUSTOMER)[0].number, "yes").kind == "unknown"
    assert desk.tickets(CUSTOMER) == []


@pytest.mark.parametrize(("text", "kind"), [("ok, thanks", "hand_over"), ("好的，谢谢", "hand_over"),
                                            ("yes, thank you", "hand_over"), ("No thanks", "no"), ("No", "no"),
                                            ("不用了，谢谢", "no"), ("thanks", "thanks")])
def test_an_offer_is_taken_or_not(service, desk, text, kind):
    number = service.begin(CUSTOMER)[0].number
    assert say(service, number, "Do you sell bicycles?").kind == "unknown"
    assert say(service, number, text).kind == kind
    assert len(desk.tickets(CUSTOMER)) == (kind == "hand_over")
    if kind == "no":                                     # and what was refused isn't done by the next question
        assert say(service, number, "And motorcycles?").kind == "unknown"


def test_at_night_it_says_when_people_are_back(shop, desk):
    service = Support(*shop, desk, clock=lambda: SUNDAY)
    assert "Monday, 05 January, at 09:00" in service.answer("I want to talk to a human").text
    assert "1月5日星期一 09:00" in service.answer("转人工").text


def test_a_follow_up_is_read_with_what_came_before(service):
    number = service.begin(CUSTOMER)[0].number
    say(service, number, "Is the crane desk lamp dimmable?")
    answer = say(service, number, "and what does it cost?")
    assert answer.facts["citations"][0]["heading"] == "Desk lamp Crane"
    assert service.answer("and what does it cost?").citations[:1] != answer.facts["citations"]


@pytest.mark.parametrize(("asked", "heading"), [
    (("How long is the warranty on lamps?", "And how much does it cost?"), "Repairs"),   # and no cup's price
    (("How much is the Desk lamp Crane?", "How long is the warranty on it?", "And what colours does it come in?"),
     "Desk lamp Crane")])
def test_a_follow_up_is_about_what_was_spoken_of(service, asked, heading):
    number = service.begin(CUSTOMER)[0].number
    cited = [say(service, number, text).facts["citations"][0]["heading"] for text in asked]
    assert cited[-1] == heading


def test_the_language_is_the_messages_own(service):
    number = service.begin(CUSTOMER, language="en")[0].number
    assert say(service, number, "你们卖自行车吗").text == service.rules.persona["zh"].unknown
    assert say(service, number, "???").text != service.rules.persona["zh"].unknown


def test_limits(service):
    number = service.begin(CUSTOMER)[0].number
    for text, why in (("", "empty"), (" \n", "empty"), ("x" * 2001, "2001 characters")):
        with pytest.raises(RequestError, match=why):
            service.say(CUSTOMER, number, text)
    for _ in range(100):
        service.say(CUSTOMER, number, "hi")
    with pytest.raises(RequestError, match="200 messages"):
        service.say(CUSTOMER, number, "hi")


# A larger model's own words, checked.

REFUND = "When do I get my money back?"


def test_own_words_that_stand_in_the_pages_are_given(shop, desk):
    speaker = ScriptedSpeaker(lambda m: "You get your money back within 5 working days after the parcel is here. [1]")
    draft = Support(*shop, desk, speaker).answer(REFUND)
    assert draft.text == "You get your money back within 5 working days after the parcel is here."
    assert [c.heading for c in draft.citations][:1] == ["When you get your money"]
    assert draft.tokens[1] > 0
    sent = speaker.asked[0][0]
    assert "Refund" not in sent[0]["content"]            # pages and question are data of the user's turn
    assert REFUND in sent[1]["content"]


@pytest.mark.parametrize("said", [
    "You get your money back within 3 working days.",    # a number that the pages don't have
    "Dragons bring you gold from the mountain every morning before breakfast.", "", "钱会在 5 个工作日内退回。"])
def test_own_words_that_do_not_are_replaced_by_the_quote(shop, desk, said):
    draft = Support(*shop, desk, ScriptedSpeaker(lambda m: said)).answer(REFUND)
    assert draft.text.startswith("We refund you within 5 working days")


def test_a_small_model_is_not_asked(shop, desk):
    speaker = ScriptedSpeaker(is_small=True)
    Support(*shop, desk, speaker).answer(REFUND)
    assert speaker.asked == []


def test_a_forbidden_promise_goes_to_a_person(shop, desk):
    speaker = ScriptedSpeaker(lambda m: "We guarantee your money within 5 working days after the parcel reached us.")
    draft = Support(*shop, desk, speaker).answer(REFUND)
    assert draft.kind == "hand_over"
    assert draft.why == "a promise that only people may give"


def test_support_needs_numbers_and_words(shop):
    matcher = shop[1].matcher
    cited = [Citation("a", "Costs", "Express shipping costs 9.90 euros.", 0, 34)]
    assert is_supported("Express costs 9.90 euros.", "express?", cited, matcher)
    assert not is_supported("Express costs 9.9 euros.", "express?", cited, matcher)
    assert is_supported("Your 2 parcels cost 9.90 euros.", "what do 2 parcels cost", cited, matcher)
    assert not is_supported("Express costs 9.90 euros. The weather is lovely in autumn.", "express?", cited, matcher)


# Pages.

def test_long_sections_are_quoted_around_the_nearest_sentence(tmp_path):
    long = "# Care\n## Everything\n" + "".join(f"Sentence {i} speaks of thing{i}. " for i in range(60))
    (tmp_path / "care.md").write_text(long, encoding="utf-8")
    rules = Rules.model_validate({"persona": {"en": dict.fromkeys(
        ("name", "shop", "greeting", "thanks", "goodbye", "unknown", "handed_over", "waiting"), "x")}})
    with Collection(tmp_path / "c.sqlite") as collection:
        pages = Pages.read(tmp_path, collection, rules)
        section = pages.best("thing47", "en", 1)[0].section
        citation = cite(section, "thing47", pages.matcher)
        assert "thing47" in citation.quote
        assert len(citation.quote) <= 600
        assert long[citation.start:citation.end] == citation.quote
        (tmp_path / "care.md").unlink()
        with pytest.raises(DataError, match="no page"):
            Pages.read(tmp_path, collection, rules)
    with pytest.raises(DataError, match="no folder"):
        Pages.read(tmp_path / "missing", collection, rules)


def test_rows_are_shown_a_cell_a_line():
    row = "item: Mug; price: 16; colours: white; blue"
    assert shown(Citation("a", "Mug", row, 0, len(row))) == "item: Mug\nprice: 16\ncolours: white; blue"
    assert shown(Citation("a", "Other", row, 0, len(row))) == row


def test_the_sample_answers_most_of_its_questions(service, shop):
    """A floor under what benchmarks/support.py measures, on the half that nothing was set by."""
    def given(question):
        draft = service.answer(question.text, question.language)
        return given_of(draft.kind, draft.citations)

    found = measure((q for q in read_questions(sample() / QUESTIONS) if q.part == "test"), given)
    assert found["right"]["share"] > 0.6
    assert found["hand_over_recall"]["share"] > 0.7
    assert found["refusal_recall"]["share"] > 0.7
    assert found["small_talk"]["share"] == 1
