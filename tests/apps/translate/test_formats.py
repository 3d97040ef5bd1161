"""The other formats: what is text in them, what stays, and that the result is read by others as it was meant."""

import codecs
import io
import json
import zipfile

import docx as word
import polib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.apps.translate.docx import open_docx, split_docx
from ayllu.apps.translate.formats import FORMATS, decode, encode, format_of
from ayllu.apps.translate.marks import shown
from ayllu.apps.translate.po import mark_fuzzy
from ayllu.apps.translate.splice import splice
from ayllu.errors import DataError


def louder(name: str, source: str) -> str:
    format = format_of(name)
    source = format.prepare(source, "zh")
    segments = format.split(source)
    return splice(source, segments, [tuple(p.upper() if isinstance(p, str) else p for p in s.parts) for s in segments])


def texts(name: str, source: str) -> list[str]:
    return [shown(s.parts) for s in format_of(name).split(source)]


LINES = ["# Title *x*\n", "words and **bold**\n", "\n", "- item `code`\n", "> quote\n", "```\ncode\n```\n",
         "| a | b |\n", "|---|---|\n", "[a](b) ![c](d)\n", "    code\n", "---\n", "<div>\nhtml\n</div>\n", 
         "1. one\\\n", "*a _b* c_\n",
         "[x]: y\n", "\r\n", "0:00:01,000 --> 0:00:02,000\n", "<i>a</i>\n", "&amp; <b>x\n", "\\* $x$ [^1]\n"]


@pytest.mark.parametrize("name", ["a.md", "a.txt", "a.srt", "a.html"])
@given(source=st.lists(st.sampled_from(LINES), max_size=12).map("".join))
def test_the_same_words_give_the_same_bytes(name, source):
    segments = format_of(name).split(source)
    assert splice(source, segments, [s.parts for s in segments]) == source
    places = [(s.start, s.end) for s in segments]
    assert places == sorted(places)


MARKDOWN = """---
title: kept
---
# Hello *big* world #

A paragraph with **bold text** and [a link](http://x.y "t"), `code *x*` and
a second line\\
broken. snake_case and 2 * 3. ![alt text](u.png)

> quote here
> more quote

- [ ] item one
  continued

```py
code here
```

    indented code

| A head | B |
|---|:--|
| one `a|b` | two |

<div class="x">Html <b>here</b></div>

Setext
======

[ref]: http://x "T"
"""


def test_markdown():
    assert texts("a.md", MARKDOWN) == [
        "Hello <1>big</1> world", "A paragraph with <1>bold text</1> and <2>a link</2>, <3/> and a second line",
        "broken. snake_case and 2 * 3. <1>alt text</1>", "quote here more quote", "item one continued", "A head", "B",
        "one <1/>", "two", "Html <1>here</1>", "Setext"]
    done = louder("a.md", MARKDOWN)
    for kept in ("title: kept", "code here", "    indented code", '(http://x.y "t")', "`code *x*`", "|---|:--|",
                 "(u.png)", "======", '[ref]: http://x "T"', "- [ ] ITEM ONE CONTINUED", "# HELLO *BIG* WORLD #"):
        assert kept in done, kept


def test_footnotes_of_markdown_keep_their_marks():
    source = "Text[^1] here.\n\n[^1]: One note\n[^2]: Word\n"
    assert texts("a.md", source) == ["Text<1/> here.", "One note", "Word"]
    assert "\n[^1]: ONE NOTE\n" in louder("a.md", source)
    assert "\n[^2]: WORD\n" in louder("a.md", source)


def test_words_can_become_no_markup():
    source = "a word\n"
    done = splice(source, format_of("a.md").split(source), [("# [x](javascript:y) *z* `c` <b>",)])
    assert done == "\\# \\[x\\](javascript:y) \\*z\\* \\`c\\` \\<b>\n"


def test_text_lines_and_paragraphs():
    source = "Title\r\n\r\nA paragraph that was broken by hand at about sixty or\r\nseventy columns, of two.\r\n- a\r\n"
    assert texts("a.txt", source)[0] == "Title"
    assert "A PARAGRAPH" in louder("a.txt", source)
    assert texts("a.txt", "one\ntwo\n") == ["one", "two"]


def test_subtitles():
    source = ("1\n00:00:01,000 --> 00:00:02,000\n<i>Hello there</i> my friend\nhow are you\n\n"
              "2\n00:00:03,000 --> 00:00:04,000\n- Hi\n- Ho\n")
    assert texts("a.srt", source) == ["<1>Hello there</1> my friend how are you", "Hi", "Ho"]
    assert louder("a.srt", source) == ("1\n00:00:01,000 --> 00:00:02,000\n<i>HELLO THERE</i> MY FRIEND HOW ARE YOU\n\n"
                                       "2\n00:00:03,000 --> 00:00:04,000\n- HI\n- HO\n")
    vtt = "WEBVTT\n\nNOTE hi\n\n00:01.000 --> 00:02.000 align:start\n<v Bob>Hello <00:01.500>dear</v>\n"
    assert texts("a.vtt", vtt) == ["Hello <1/>dear"]
    long = splice(source, format_of("a.srt").split(source), [("一" * 30 + "，" + "二" * 30 + " --> <b>",), None, None])
    assert "，\n二" in long
    assert long.count("-->") == 2


def test_json():
    source = ('{"title" : "Hello {name}", "url":"http://a.b/c", "l":["It\\u0027s <b class=\\"x\\">fine</b> ", 3], '
              '"id":"a_b"}')
    assert texts("a.json", source) == ["Hello {name}", "It's <1>fine</1>"]
    done = json.loads(louder("a.json", source))
    assert done == {"title": "HELLO {NAME}", "url": "http://a.b/c", "id": "a_b",
                    "l": ["IT'S <b class=\"x\">FINE</b> ", 3]}
    with pytest.raises(DataError, match="no JSON"):
        texts("a.json", "{")
    with pytest.raises(DataError, match="deep"):
        texts("a.json", "[" * 100_000 + "]" * 100_000)


PO = r'''msgid ""
msgstr ""
"Language: \n"
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=INTEGER; plural=EXPRESSION;\n"

#: a.c:1
msgid "Hello %s\n"
msgstr ""

#, fuzzy, c-format
#| msgid "old"
msgid ""
"Long "
"text \"q\""
msgstr "alt"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] ""
msgstr[1] ""

#, fuzzy
msgctxt "menu"
msgid "done"
msgstr ""

msgid "finished"
msgstr "fertig"

#~ msgid "old"
#~ msgstr "alt"
'''


def test_po_as_polib_reads_it():
    done = polib.pofile(louder("a.po", PO))
    assert done.metadata["Language"] == "zh"
    assert done.metadata["Plural-Forms"] == "nplurals=1; plural=0;"
    found = {e.msgid: (e.msgstr or e.msgstr_plural, e.flags) for e in done if not e.obsolete}
    assert found == {"Hello %s\n": ("HELLO %S\n", []), 'Long text "q"': ('LONG TEXT "Q"', ["c-format"]),
                     "%d file": ({0: "%D FILES"}, []), "done": ("DONE", []), "finished": ("fertig", [])}
    assert [e.msgstr for e in done.obsolete_entries()] == ["alt"]


@pytest.mark.parametrize(("source", "line"), [
    ('msgid "Hello\nmsgstr ""\n', 1), ('msgid "Hello"\nmsgstr ""\n\nmsgid Bye\nmsgstr ""\n', 4),
    ("Once upon a time\nthere was a file.\n", 1), ('msgid "a"\nmsgstr ""\n"half\n', 3)])
def test_a_broken_po_file_is_refused(source, line):
    with pytest.raises(DataError, match=f"^line {line} is no PO"):
        louder("a.po", source)


def test_lines_of_po_may_be_indented():
    done = louder("a.po", '  msgid "a"\n  "b"\n\tmsgstr ""\n\n\n# note\nmsgid "c"\nmsgstr "d"\n')
    assert 'msgstr "AB"' in done


def test_a_doubted_entry_is_marked_fuzzy():
    done = louder("a.po", PO)
    marked = polib.pofile(mark_fuzzy(done, [done.index("LONG"), done.index('msgctxt "menu"')]))
    assert {e.msgid: "fuzzy" in e.flags for e in marked if not e.obsolete} == {
        "Hello %s\n": False, 'Long text "q"': True, "%d file": False, "done": True, "finished": False}


@pytest.fixture
def letter() -> bytes:
    document = word.Document()
    paragraph = document.add_paragraph("Hello ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" wor")
    paragraph.add_run("ld & more")
    document.add_heading("Title here", 1)
    document.add_table(1, 1).cell(0, 0).text = "Cell <text>"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_docx_as_word_reads_it(letter):
    package = open_docx(letter)
    parts = {}
    for name, source in package.parts.items():
        segments = split_docx(source)
        assert splice(source, segments, [s.parts for s in segments]) == source
        parts[name] = louder("a.docx", source)
    done = package.written(parts)
    document = word.Document(io.BytesIO(done))
    runs = [(run.text, run.bold) for run in document.paragraphs[0].runs]
    assert runs == [("HELLO ", None), ("BOLD", True), (" WORLD & MORE", None)]
    assert document.tables[0].cell(0, 0).text == "CELL <TEXT>"
    with zipfile.ZipFile(io.BytesIO(letter)) as a, zipfile.ZipFile(io.BytesIO(done)) as b:
        assert a.namelist() == b.namelist()
        assert all(a.read(n) == b.read(n) for n in a.namelist() if n not in parts)


def test_a_bold_word_follows_its_words_in_docx(letter):
    source = open_docx(letter).parts["word/document.xml"]
    segments = split_docx(source)
    hello = segments[0].parts
    opens, closes = hello[1], hello[3]
    done = splice(source, segments, [(opens, "fett", closes, " zuerst"), None, None])
    package = open_docx(letter)
    runs = word.Document(io.BytesIO(package.written({"word/document.xml": done}))).paragraphs[0].runs
    assert [(run.text, run.bold) for run in runs] == [("fett", True), (" zuerst", None)]


def test_bad_docx(letter):
    with pytest.raises(DataError, match="no readable DOCX"):
        open_docx(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="old or encrypted"):
        open_docx(b"\xd0\xcf\x11\xe0" + b"x" * 100)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", b"0" * 50_000_000)
    with pytest.raises(DataError, match="bomb"):
        open_docx(bomb.getvalue())
    with pytest.raises(DataError, match="entities"):
        split_docx('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><w:p></w:p>')


HAN, LATIN = "<p>中文网页，你好世界。</p>", "<p>Crème brûlée “x”</p>"


@pytest.mark.parametrize(("raw", "encoding"), [
    (HAN.encode("gb18030"), "gb18030"), (b'<meta charset="gb2312">' + HAN.encode("gbk"), "gb18030"),
    (HAN.encode(), "utf-8"), (codecs.BOM_UTF16_LE + HAN.encode("utf-16-le"), "utf-16-le"),
    (LATIN.encode("cp1252"), "cp1252"), (b'<meta charset="iso-8859-1">' + LATIN.encode("cp1252"), "cp1252"),
    (b'<meta charset="utf-8">' + HAN.encode("gbk"), "gb18030"), (b"<p>ok \xff" + b"x" * 500, "utf-8"), (b"", "utf-8"),
    (b'<meta charset="no-such">' + HAN.encode(), "utf-8"), (b"\x81\x8d caf\xe9 au lait", "cp1252")])
def test_bytes_are_text_and_the_same_bytes_again(raw, encoding):
    text = decode(raw)
    assert text.encoding == encoding
    assert encode(text.text, text, "strict") == (raw, "")


def test_wrong_encodings_are_said():
    assert "declared as utf-8, read as gb18030" in decode(b'<meta charset="utf-8">' + HAN.encode("gbk")).note
    assert "1 bytes are no UTF-8" in decode(b"<p>ok \xff" + b"x" * 500).note
    with pytest.raises(DataError, match="zero bytes"):
        decode(b"\x7fELF\0\0")


@pytest.mark.parametrize(("encoding", "text"), [
    ("cp932", "私は犬が好きです。カタカナもあります。"), ("euc_jp", "今日は天気がいいので、公園へ行きました。"),
    ("cp949", "저는 개를 좋아합니다. 오늘은 날씨가 좋습니다.")])
def test_japanese_and_korean_are_not_taken_for_chinese(encoding, text):
    raw = f"<p>{text}</p>".encode(encoding)
    found = decode(raw)
    assert (found.text, found.note) == (f"<p>{text}</p>", f"no encoding is declared, read as {encoding}")
    assert encode(found.text, found, "strict") == (raw, "")


def test_letters_that_an_encoding_lacks():
    latin = decode(b'<meta charset="iso-8859-1"><p>caf\xe9')
    assert encode(latin.text + "中", latin, "xmlcharrefreplace")[0].endswith(b"caf\xe9&#20013;")
    whole = latin.text + "中"
    assert encode(whole, latin, "strict") == (whole.encode(), "written as UTF-8, for cp1252 lacks its letters")


def test_the_table_of_formats():
    wanted = {".html", ".md", ".txt", ".srt", ".vtt", ".json", ".po", ".docx"}
    assert {suffix for one in FORMATS for suffix in one.suffixes} >= wanted
    assert format_of("index", "text/html; charset=utf-8").name == "html"
    with pytest.raises(DataError, match=r"\.exe aren't translated"):
        format_of("x.exe")
