"""Whole files: what is written, what the report says, and files that are no such thing."""

import io
import json

import pytest
from apps.scripted import ScriptedSpeaker
from apps.translate.test_translator import german

from ayllu.apps.speaker import LocalSpeaker
from ayllu.apps.translate.document import translate_bytes
from ayllu.apps.translate.formats import format_of
from ayllu.apps.translate.holes import Glossary
from ayllu.apps.translate.languages import Pair
from ayllu.apps.translate.measured import said
from ayllu.apps.translate.translator import Translator
from ayllu.errors import DataError

PAGE = ('<!DOCTYPE html><html lang="en"><head><title>Hello world</title></head><body>\n'
        '<p id="a">I like <b id="c">big</b> dogs</p><pre>x = 1</pre></body></html>')


def done(raw, name="page.html", says=german, **options):
    return translate_bytes(raw, format_of(name), "de", lambda pair: Translator(ScriptedSpeaker(says), pair),
                           **{"source": "en", **options})


def test_a_page_and_its_report():
    found = done(PAGE.encode())
    assert found.data.decode() == PAGE.replace('lang="en"', 'lang="de"').replace("Hello world", "hallo Welt").replace(
        "I like", "ich mag").replace(">big<", ">gro&#223;e<").replace(" dogs", " Hunde")
    assert found.report["segments"] == 2
    assert found.report["by"] == {"model": 2}
    assert (found.report["from"], found.report["to"], found.report["measured"]) == ("en", "de", None)
    assert "never measured" in said("scripted", Pair("en", "de"))
    json.dumps(found.report)


def test_a_report_says_the_words_that_were_written():
    speaker = ScriptedSpeaker(lambda m: "gut", is_small=True)
    found = translate_bytes(b"world: 3 cats", format_of("a.txt"), "de",
                            lambda pair: Translator(speaker, pair, glossary=Glossary({"world": "Erde"})), source="en")
    assert found.data.decode() == found.report["low"][0]["translation"]
    assert found.data.startswith(b"Erde")


def test_both_languages_side_by_side():
    text = done(PAGE.encode(), bilingual=True).data.decode()
    assert '<span class="ayllu-pair"><span lang="en">I like <b id="c">big</b> dogs</span>' in text
    assert '<span lang="de">ich mag <b>gro&#223;e</b> Hunde</span></span>' in text
    assert "<title>Hello world / hallo Welt</title>" in text
    assert text.count("<style>") == 1
    assert done(b"# Hello\n", "a.md", bilingual=True).data == b"# Hello<br>hallo\n"
    assert done(b"- Hello\r\n\r\nworld", "a.txt", bilingual=True).data == b"- Hello\r\nhallo\r\n\r\nworld\r\nWelt"
    cue = b"1\n00:00:01,000 --> 00:00:02,000\n<i>Hello</i>\n"
    assert done(cue, "a.srt", bilingual=True).data == cue.replace(b"Hello", b"Hello\nhallo")
    options = done(b"<select><option>Hello<option>world</select>", bilingual=True).data
    assert b"<option>Hello / hallo<option>world / Welt</select>" in options
    with pytest.raises(DataError, match="no bilingual form"):
        done(b"{}", "a.json", bilingual=True)


def test_both_languages_in_a_letter():
    word = pytest.importorskip("docx")
    letter, out = word.Document(), io.BytesIO()
    run = letter.add_paragraph("Hello").add_run()
    run.add_tab()
    letter.paragraphs[0].add_run("world")
    letter.add_table(1, 1).cell(0, 0).text = "Hello"
    letter.save(out)
    found = word.Document(io.BytesIO(done(out.getvalue(), "a.docx", lambda m: "hallo Welt", bilingual=True).data))
    assert found.paragraphs[0].text.startswith("Hello\tworld\n")
    assert found.paragraphs[0].text.count("\t") == 1
    assert found.tables[0].cell(0, 0).text == "Hello\nhallo Welt"


def test_doubtful_words_of_a_po_file_are_fuzzy():
    raw = b'msgid "Hello"\nmsgstr ""\n\nmsgid "world 3"\nmsgstr ""\n'
    found = done(raw, "a.po", lambda m: "hallo" if "Hello" in m[-1]["content"] else "")
    assert found.data == b'msgid "Hello"\nmsgstr "hallo"\n\n#, fuzzy\nmsgid "world 3"\nmsgstr "world 3"\n'
    assert found.report["n_low"] == 1


def test_letters_that_the_page_cannot_hold():
    raw = '<meta charset="iso-8859-1"><p>caf\xe9 words</p>'.encode("latin-1")
    found = translate_bytes(raw, format_of("a.html"), "zh", lambda p: Translator(ScriptedSpeaker(lambda m: "咖啡"), p),
                            source="en")
    assert found.data == b'<meta charset="iso-8859-1"><p>&#21654;&#21857;</p>'


def test_a_whole_page_that_names_no_encoding_is_read_right_whatever_the_browser_takes():
    for raw, is_named in ((b"<html><p>words</p></html>", False), (b"<p>words</p>", True),
                          (b"<html><meta charset=utf-8><p>words</p></html>", True)):
        found = translate_bytes(raw, format_of("a.html"), "zh", lambda pair: Translator(
            ScriptedSpeaker(lambda messages: "咖啡"), pair), source="en")
        assert ("咖啡" if is_named else "&#21654;&#21857;").encode() in found.data
    found = translate_bytes(b"<html><p>words</p></html>", format_of("a.html"), "zh", lambda pair: Translator(
        ScriptedSpeaker(lambda messages: "咖啡"), pair), source="en", header="utf-8")
    assert found.data == "<html><p>咖啡</p></html>".encode()


@pytest.mark.parametrize("raw", [b"", b"<p>123</p>", b"<!-- x -->", b"\n\n"])
def test_nothing_to_translate(raw):
    found = done(raw)
    assert found.data == raw
    assert "no text was found" in found.report["notes"]


def test_a_page_that_is_in_the_language_already_stays():
    """Of a folder's pages one may be: that must not end the others' work."""
    raw = "<p>这一页已经是中文了。</p>".encode()
    found = translate_bytes(raw, format_of("page.html"), "zh", lambda pair: pytest.fail("nothing to translate"))
    assert found.data == raw
    assert "is in zh already" in found.report["notes"][0]


def test_a_page_says_its_language_where_its_words_do_not():
    page = b'<html class="x" lang="en-GB"><meta charset="utf-8"><p>Hello caf\xe9</p>' + b" zzgq" * 3
    assert done(page, says=lambda m: "hallo", source=None).report["from"] == "en"
    with pytest.raises(DataError, match="language couldn't be told"):
        done(page.replace(b"en-GB", b"xx"), source=None)


def test_files_that_are_too_large_or_no_text():
    with pytest.raises(DataError, match="the most is"):
        done(b"x" * (65 << 20))
    with pytest.raises(DataError, match="zero bytes"):
        done(b"\x89PNG\0\0\0\0")


@pytest.mark.slow
def test_fifty_megabytes():
    """Many tags, one long script and few words, for it's the page that is tested."""
    raw = b"<div class='x'><a href='/y?z=1'>12</a></div>\n" * 200_000 + b"<p>Hello</p><script>" + b"a<b;" * 11_000_000
    found = done(raw)
    assert found.report["segments"] == 1
    assert found.data == raw.replace(b"Hello", b"hallo")


def test_the_bundled_model_translates_a_sentence():
    speaker = LocalSpeaker.load("ayllu-mini-chat")
    found = Translator(speaker, Pair("en", "zh")).text("I like dogs.")
    assert found.parts == ("我喜欢狗。",)
    assert found.probability > 0.8
    assert not found.is_low
