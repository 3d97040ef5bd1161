"""Pages: every byte but the words stays; no translator, however bad, costs a tag."""

from itertools import pairwise

import html5lib
import pytest
from apps.scripted import ScriptedSpeaker
from apps.translate.soup import Seen, soups, vandal
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.apps.translate.languages import Pair
from ayllu.apps.translate.marks import shown, words
from ayllu.apps.translate.pages import set_language, split_html
from ayllu.apps.translate.splice import splice
from ayllu.apps.translate.tokens import tokens
from ayllu.apps.translate.translator import Translator


def louder(source: str) -> str:
    segments = split_html(source)
    return splice(source, segments, [tuple(p.upper() if isinstance(p, str) else p for p in s.parts) for s in segments])


def texts(source: str) -> list[str]:
    return [shown(s.parts) for s in split_html(source)]


@given(soups, st.booleans())
def test_tokens_are_all_of_the_source(source, xml):
    found = list(tokens(source, xml))
    assert "".join(source[t.start:t.end] for t in found) == source
    assert all(a.end == b.start for a, b in pairwise(found))


@given(soups)
def test_the_same_words_give_the_same_page(source):
    segments = split_html(source)
    assert splice(source, segments, [s.parts for s in segments]) == source
    assert splice(source, segments, [None] * len(segments)) == source


@settings(deadline=None, max_examples=150)
@given(soups, st.integers(0, 99), st.booleans())
def test_any_translator_keeps_the_tags(source, seed, is_small):
    segments = split_html(source)
    translator = Translator(ScriptedSpeaker(vandal(seed), is_small=is_small), Pair("en", "de"))
    done = splice(source, segments, [one.parts for one in translator.translate([s.parts for s in segments])])
    before, after = Seen(source), Seen(done)
    assert after.blocks == before.blocks
    assert after.inline == before.inline


@given(soups)
def test_what_was_well_nested_stays_so(source):
    source = f"<!DOCTYPE html><html><head><title>x</title></head><body><p>{source}</p></body></html>"
    before = html5lib.HTMLParser()
    before.parse(source)
    if not before.errors:
        after = html5lib.HTMLParser(strict=True)
        after.parse(louder(source))


def test_sentences_keep_their_inline_tags_and_blocks_cut_them():
    source = ("<p>Hello <b>big <a href=x>world</a></b>, see <code>foo()</code> now.<p>Next <i>one<br>two</i> three "
              "<!-- c --> four.<ul><li>a<li translate=no>b<li>c</ul>")
    assert texts(source) == ["Hello <1>big <2>world</2></1>, see <3/> now.", "Next", "one", "two",
                             "three <1/> four.", "a", "c"]


def test_links_of_a_menu_are_texts_of_their_own():
    assert texts("<p><a href=a>Home</a> | <a href=b>My <b>books</b></a></p>") == ["Home", "My <1>books</1>"]
    assert texts("<p>See <a href=a>one</a> <a href=b>two</a></p>") == ["See <1>one</1> <2>two</2>"]


def test_tags_that_cross_stay_where_they_are():
    assert texts("<p><b><i>cross</b>ed</i> words</p>") == ["cross", "ed", "words"]
    assert louder("<p><b><i>cross</b>ed</i></p>") == "<p><b><i>CROSS</b>ED</i></p>"


@pytest.mark.parametrize("source", [
    "<script>say('words')</script>", "<style>b{}</style>", "<pre>words</pre>", "<p><code>words</code></p>",
    "<p translate=no>words</p>", "<p class='x notranslate'>words</p>", "<textarea>words</textarea>", "<!-- words -->",
    "<svg><text>words</text></svg>", "<p>123 – 456</p>", "<a href=words></a>", "<template><p>words</p></template>"])
def test_what_is_not_for_translation(source):
    assert texts(source) == []


def test_attributes_and_titles():
    source = ('<title>Page &amp; co</title><meta name=description content="About us">'
              '<meta name=viewport content="width"><img alt="A cat" src=cat>'
              '<input placeholder=Name value=kept><input type=submit value="Send it">'
              '<p>See <a title="Say &quot;hi&quot;" href=h>this</a> one')
    assert texts(source) == ["Page & co", "About us", "A cat", "Name", "Send it", 'Say "hi"', "See <1>this</1> one"]
    assert louder(source) == (
        '<title>PAGE &amp; CO</title><meta name=description content="ABOUT US"><meta name=viewport content="width">'
        '<img alt="A CAT" src=cat><input placeholder="NAME" value=kept><input type=submit value="SEND IT">'
        '<p>SEE <a title="SAY &quot;HI&quot;" href=h>THIS</a> ONE')


def test_words_can_become_no_tag():
    segments = split_html("<p title='a'>x</p>")
    done = splice("<p title='a'>x</p>", segments, [("<b>'\"&",), ("<script>&lt;",)])
    assert done == "<p title='&lt;b&gt;&#39;\"&amp;'>&lt;script&gt;&amp;lt;</p>"


def test_xhtml_has_empty_elements():
    source = "<p>one <script src='x'/> two</p>"
    assert [shown(s.parts) for s in split_html(source, xml=True)] == ["one", "two"]
    assert texts(source) == ["one"]                      # in HTML the script never ends


def test_the_language_of_the_page():
    done = set_language('<html lang="en-GB" xml:lang=en><p lang="en">', "zh")
    assert done == '<html lang="zh" xml:lang="zh"><p lang="en">'
    assert set_language("<html><p>", "zh") == "<html><p>"
    assert set_language('<html lang="zh-CN">', "zh") == '<html lang="zh-CN">'


def test_ten_thousand_tags_deep():
    source = "<div>" * 10_000 + "<b>" * 10_000 + "words" + "</div>" * 10_000
    assert [words(s.parts) for s in split_html(source)] == ["words"]
    assert louder(source) == source.replace("words", "WORDS")


@pytest.mark.parametrize("source", ["<p a='" * 20_000, "<!--" * 50_000, "<b></i>" * 20_000, "<" * 100_000,
                                    "<xmp>" * 20_000, "</p" * 50_000, "&" * 100_000, "<svg>" * 20_000])
def test_broken_pages_take_linear_time(source):
    assert louder(source) == source
