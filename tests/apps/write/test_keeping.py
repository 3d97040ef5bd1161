"""What is kept: versions and what changed between them, files of each format, batches that go on."""

import io
import json
from html.parser import HTMLParser

import docx
import pytest
from apps.scripted import ScriptedSpeaker
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.write.batch import finished, read_briefs, write_all
from ayllu.apps.write.brief import Brief
from ayllu.apps.write.drafts import Drafts, diff
from ayllu.apps.write.export import export
from ayllu.errors import DataError, NotAllowed, NotFound
from ayllu.principal import Principal

ANNA, BERT = (Principal("shop", name, frozenset({"jobs"})) for name in ("anna", "bert"))
TEXT = st.text(alphabet="ab 未来\n.。", max_size=60)


def test_strong_words_are_strong():
    text = "Take **two & more** now, 2 ** 3 ** 4.\n\n- **One**: first"
    page = export(text, "html").decode()
    assert "<p>Take <strong>two &amp; more</strong> now, 2 ** 3 ** 4.</p>" in page
    assert "<li><strong>One</strong>: first</li>" in page
    docx = pytest.importorskip("docx")
    paragraphs = docx.Document(io.BytesIO(export(text, "docx"))).paragraphs
    assert [[(run.text, run.bold) for run in paragraph.runs] for paragraph in paragraphs] == [
        [("Take ", None), ("two & more", True), (" now, 2 ** 3 ** 4.", None)], [("One", True), (": first", None)]]


def test_numbered_lists_are_lists_that_count_by_themselves():
    text = "Do this:\n1. **Peel** it\n2. Eat it\n\nThen:\n\n3) Rest\n\n1. Wake\n\nIn 1998\n2024. So it was.\n"
    page = export(text, "html").decode()
    for part in ('<ol start="1"><li><strong>Peel</strong> it</li><li>Eat it</li></ol>',
                 '<ol start="3"><li>Rest</li></ol>', '<ol start="1"><li>Wake</li></ol>',
                 "<p>In 1998<br>\n2024. So it was.</p>"):
        assert part in page
    found = docx.Document(io.BytesIO(export(text, "docx")))
    listed = [p for p in found.paragraphs if p.style.name == "List Number"]
    assert [p.text for p in listed] == ["Peel it", "Eat it", "Rest", "Wake"]
    ids = [p._p.pPr.numPr.numId.val for p in listed]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    numbers = found.part.numbering_part.element
    assert [numbers.num_having_numId(i).lvlOverride_lst[0].startOverride.val for i in ids] == [1, 1, 3, 1]


@given(TEXT, TEXT)
def test_a_diff_holds_both_texts(old, new):
    changes = diff(old, new)
    assert "".join(text for kind, text in changes if kind != "added") == old
    assert "".join(text for kind, text in changes if kind != "removed") == new
    assert all(text for _, text in changes)
    assert [kind for kind, _ in diff(old, old)] == ["same"] * bool(old)


def test_a_diff_names_the_words_that_changed():
    assert diff("one two\n\nthe cold sea\n", "one two\n\nthe warm sea\n") == [
        ("same", "one two\n\nthe "), ("removed", "cold"), ("added", "warm"), ("same", " sea\n")]


def test_versions_belong_to_one_person_and_stay(tmp_path):
    drafts = Drafts(tmp_path / "drafts.sqlite")
    one = drafts.begin(ANNA, "海", Brief(topic="海", points=("盐",)), "first", "written")
    assert [drafts.add(ANNA, one, text) for text in ("second", "third")] == [2, 3]
    drafts.close()
    drafts = Drafts(tmp_path / "drafts.sqlite")
    found = drafts.get(ANNA, one)
    assert [(v["version"], v["text"]) for v in found["versions"]] == [(1, "first"), (2, "second"), (3, "third")]
    assert Brief.model_validate(found["brief"]).points == ("盐",)
    assert [(d["id"], d["versions"]) for d in drafts.list(ANNA)] == [(one, 3)]
    assert drafts.list(BERT) == []
    for act in (lambda: drafts.get(BERT, one), lambda: drafts.add(BERT, one, "x"), lambda: drafts.delete(BERT, one)):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(NotAllowed):
        drafts.list(Principal("shop", "old", frozenset({"generate"})))
    drafts.delete(ANNA, one)
    assert drafts.list(ANNA) == []


MARKDOWN = "# Sea & <b>salt</b>\n\nA line,\nanother.\n\n## 波浪\n\n- one\n- <script>x</script>\n\nEnd\x00\x0b.\n"


def test_markdown_stays_as_it_is():
    assert export(MARKDOWN, "md").decode() == MARKDOWN


def test_html_is_escaped_and_well_nested():
    page = export(MARKDOWN, "html", "<title> & co").decode()
    seen, open_ = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append(tag)
            if tag not in ("meta", "br"):
                open_.append(tag)

        def handle_endtag(self, tag):
            assert open_.pop() == tag

    Reader().feed(page)
    assert open_ == []
    assert not {"b", "script"} & set(seen)
    assert [seen.count(tag) for tag in ("h1", "h2", "p", "li", "br")] == [1, 1, 2, 2, 1]
    assert "&lt;script&gt;" in page


def test_docx_has_headings_lists_and_no_character_that_breaks_it():
    document = docx.Document(io.BytesIO(export(MARKDOWN, "docx", "海")))
    assert [(p.style.name, p.text) for p in document.paragraphs] == [
        ("Heading 1", "Sea & <b>salt</b>"), ("Normal", "A line,\nanother."), ("Heading 2", "波浪"),
        ("List Bullet", "one"), ("List Bullet", "<script>x</script>"), ("Normal", "End.")]
    assert document.core_properties.title == "海"


@given(st.text(max_size=300))
def test_any_text_can_be_exported(text):
    for form in ("md", "html", "docx"):
        assert isinstance(export(text, form, text), bytes)


TABLE = ("Topic;Kind;length;points;forbidden\n"
         "The sea;post;60;salt|cold;\n"
         ";post;60;;\n"
         "Winter;novel;60;;\n"
         "未来科技;poem;40;机器人；云；;手机\n"
         "Wind;post;many;;\n"
         "Rain;post;60;wet;wet\n"
         "Snow;post\n")


def test_broken_rows_are_named_by_their_line_and_the_rest_goes_on(tmp_path):
    (tmp_path / "briefs.csv").write_text(TABLE.replace("salt|cold", '"salt; cold"'), encoding="utf-8-sig")
    rows, faults = read_briefs(tmp_path / "briefs.csv")
    assert [(row.line, row.brief.topic, row.brief.points) for row in rows] == [
        (2, "The sea", ("salt", "cold")), (5, "未来科技", ("机器人", "云"))]
    assert [fault.split(": ")[0] for fault in faults] == [f"briefs.csv:{line}" for line in (3, 4, 6, 7, 8)]
    for says, fault in zip(("topic", "kind", "length", "'wet'", "cells"), faults, strict=True):
        assert says in fault


@pytest.mark.parametrize(("text", "says"), [
    ("topik\nx\n", "is 'topic' meant"), ("topic\n", "no brief"), ("topic,kind\n,post\n", "briefs.csv:2"),
    ("", "no brief")])
def test_a_table_without_briefs_says_why(tmp_path, text, says):
    (tmp_path / "briefs.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read_briefs(tmp_path / "briefs.csv")


def test_a_batch_goes_on_after_what_is_finished(tmp_path):
    path, out = tmp_path / "b.csv", tmp_path / "out.jsonl"
    path.write_text("topic,kind\n" + "".join(f"topic {i},post\n" for i in range(4)))
    rows, _ = read_briefs(path)

    def say(messages):
        return f"{messages[0]['content']} " + "word " * 100

    whole = list(write_all(rows, ScriptedSpeaker(say), seed=5))
    assert [value["line"] for value in whole] == [2, 3, 4, 5]
    assert whole[0]["checks"]["target"] == 120
    lines = [json.dumps(value) + "\n" for value in whole]
    out.write_text("".join(lines[:2]) + lines[2][:30])                       # killed in the midst of the third
    assert finished(out, rows) == 2
    assert out.read_text() == "".join(lines[:2])
    beats = []
    assert list(write_all(rows, ScriptedSpeaker(say), seed=5, done=2, beat=beats.append)) == whole[2:]
    assert beats == [2, 3]
    with pytest.raises(DataError, match="other briefs"):
        finished(out, rows[1:])
