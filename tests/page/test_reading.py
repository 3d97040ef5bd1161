"""The readers of Markdown and of streams, run in the browser as the page runs them; hostile text with them."""

import json
import random

import pytest

MARKDOWN = "async ([text]) => (await import('/ui/js/markdown.js')).blocks(text)"
RENDER = """async ([text]) => {
  const { renderInto } = await import('/ui/js/render.js');
  const place = document.createElement('div');
  document.body.append(place);
  const begun = performance.now();
  renderInto(place, text);
  return {ms: performance.now() - begun, tags: [...place.querySelectorAll('*')].map(e => e.localName),
          attributes: [...place.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name + '=' + a.value)),
          text: place.textContent, markup: place.innerHTML};
}"""


@pytest.fixture(scope="module")
def reader(browser, server):
    """A page that only lends its modules."""
    context = browser.new_context()
    context.set_default_timeout(120_000)                 # as in conftest.py
    page = context.new_page()
    page.goto(server.url)
    yield page
    context.close()


def text(value):
    return [{"kind": "text", "text": value}]


@pytest.mark.parametrize(("source", "expected"), [
    ("a\nb", [{"kind": "paragraph", "children": [*text("a"), {"kind": "break"}, *text("b")]}]),
    ("# One #", [{"kind": "heading", "level": 1, "children": text("One")}]),
    ("####### no", [{"kind": "paragraph", "children": text("####### no")}]),
    ("---", [{"kind": "rule"}]),
    ("```py\nx = '<b>'\n\ny\n```", [{"kind": "code", "language": "py", "text": "x = '<b>'\n\ny", "isOpen": False}]),
    ("~~~\nstill open", [{"kind": "code", "language": "", "text": "still open", "isOpen": True}]),
    ("> a\n> b", [{"kind": "quote", "children": [
        {"kind": "paragraph", "children": [*text("a"), {"kind": "break"}, *text("b")]}]}]),
    ("3. a\n4. b", [{"kind": "list", "isOrdered": True, "start": 3, "items": [
        {"isDone": None, "children": [{"kind": "paragraph", "children": text("a")}]},
        {"isDone": None, "children": [{"kind": "paragraph", "children": text("b")}]}]}]),
    ("- [x] a\n  - b", [{"kind": "list", "isOrdered": False, "start": 1, "items": [{"isDone": True, "children": [
        {"kind": "paragraph", "children": text("a")},
        {"kind": "list", "isOrdered": False, "start": 1, "items": [
            {"isDone": None, "children": [{"kind": "paragraph", "children": text("b")}]}]}]}]}]),
    ("|a|b|\n|:-:|-:|\n|1|x\\|y|", [{"kind": "table", "head": [
        {"align": "center", "children": text("a")}, {"align": "right", "children": text("b")}],
        "rows": [[{"align": "center", "children": text("1")}, {"align": "right", "children": text("x|y")}]]}]),
    ("**a *b* c** ~~d~~ `e` \\*f", [{"kind": "paragraph", "children": [
        {"kind": "strong", "children": [*text("a "), {"kind": "em", "children": text("b")}, *text(" c")]}, *text(" "),
        {"kind": "strike", "children": text("d")}, *text(" "), {"kind": "code", "text": "e"}, *text(" *f")]}]),
    ("snake_case_name and 2 * 3 * 4", [{"kind": "paragraph", "children": text("snake_case_name and 2 * 3 * 4")}]),
    ("[a](https://e.org/x) 见https://e.org/y。", [{"kind": "paragraph", "children": [
        {"kind": "link", "address": "https://e.org/x", "children": text("a")}, *text(" 见"),
        {"kind": "link", "address": "https://e.org/y", "children": text("https://e.org/y")}, *text("。")]}]),
    ("", []),
])
def test_markdown(reader, source, expected):
    assert reader.evaluate(MARKDOWN, [source]) == expected


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<iframe srcdoc='<script>alert(1)</script>'>",
    "[a](javascript:alert(1))", "[a](JaVaScRiPt:alert(1))", "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)", "<javascript:alert(1)>", "![a](javascript:alert(1))", "![x](https://evil.example/pixel.png)",
    '[a](https://e.org/"onmouseover="alert(1))', "```\"><script>alert(1)</script>\nx\n```",
    "|<b onclick=alert(1)>|\n|-|\n|<svg onload=alert(1)>|", "# <svg/onload=alert(1)>", "- <a href=javascript:alert(1)>",
    "[a]( javascript:alert(1))", "[a](java\nscript:alert(1))", "[a](\tjavascript:alert(1))", "&lt;script&gt;alert(1)",
    "[<img src=x onerror=alert(1)>](https://e.org)", "`<script>`", "\x00<script>\x00", "[a](//evil.example)",
]
SAFE_TAGS = {"p", "br", "a", "code", "pre", "div", "span", "button", "svg", "path", "table", "thead", "tbody", "tr",
             "th", "td", "h3", "h4", "ul", "ol", "li", "strong", "em", "s", "blockquote", "hr"}


def check_harmless(found):
    assert set(found["tags"]) <= SAFE_TAGS
    for attribute in found["attributes"]:
        name, _, value = attribute.partition("=")
        assert not name.startswith("on")
        assert name not in ("src", "srcdoc", "style")
        assert name != "href" or value.startswith(("https://", "http://", "mailto:"))


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_markdown_becomes_text(reader, source):
    check_harmless(reader.evaluate(RENDER, [source]))


def test_random_mixtures_of_hostile_markdown(reader):
    random.seed(1)
    signs = [*HOSTILE, "\n", "\n\n", "> ", "- ", "1. ", "```", "**", "_", "|", "[", "](", ")", "<", ">", "\\", "  "]
    for _ in range(60):
        check_harmless(reader.evaluate(RENDER, ["".join(random.choices(signs, k=40))]))


@pytest.mark.parametrize("source", [
    "[" * 50_000, "[](" * 20_000, "*" * 50_000, "*a " * 20_000, "**a" * 20_000, "_a" * 20_000, "`" * 50_000,
    "`a``" * 10_000, "<" * 50_000, "<http://" * 6_000, "http://" + "." * 50_000 + "a", "> " * 20_000, "- " * 20_000,
    "  " * 30_000 + "x", "# a" + " " * 50_000 + "b", "a|\n" + " " * 50_000 + "x", "~" * 50_000 + "`",
    "-" * 50_000 + "x", "|" * 30_000 + "\n" + "-|" * 15_000, "- a\n" * 10_000, ">" * 50_000, "1. " * 20_000,
    "\\" * 50_000,
], ids=lambda source: f"{source[:6]!r}x{len(source)}")
def test_hostile_text_costs_no_more_than_long_text(reader, source):
    """Tens of thousands of signs within 3 s, on a busy machine: anything quadratic takes far longer, each time."""
    assert any(reader.evaluate(RENDER, [source])["ms"] < 3000 for _ in range(3))


def test_a_stream_reads_the_same_wherever_it_is_cut(reader):
    whole = (": still here\n\ndata: {\"a\": \"你好\"}\n\ndata: one\ndata: two\r\n\r\nevent: x\ndata:three\n\n"
             "id: 4\n\ndata: [DONE]\n\n")
    expected = ['{"a": "你好"}', "one\ntwo", "three", "[DONE]"]
    cut = """async ([whole]) => {
      const { EventParser } = await import('/ui/js/stream.js');
      const found = [];
      for (let at = 0; at <= whole.length; at++) {
        const parser = new EventParser();
        found.push([...parser.push(whole.slice(0, at)), ...parser.push(whole.slice(at))]);
      }
      const single = new EventParser();
      found.push([...whole].flatMap(sign => single.push(sign)));
      return found;
    }"""
    for found in reader.evaluate(cut, [whole]):
        assert found == expected


def test_a_growing_text_keeps_the_elements_of_finished_blocks(reader):
    kept = reader.evaluate("""async () => {
      const { renderInto } = await import('/ui/js/render.js');
      const place = document.createElement('div');
      renderInto(place, 'one\\n\\ntwo');
      const [first, second] = place.children;
      renderInto(place, 'one\\n\\ntwo more');
      return [place.children[0] === first, place.children[1] === second, place.textContent];
    }""")
    assert kept == [True, False, "onetwo more"]


def test_settings_are_read_strictly(reader):
    read = """async ([side]) => {
      const { parameters } = await import('/ui/js/ask.js');
      try { return parameters(side, 'chat'); } catch (error) { return error.field ?? String(error); }
    }"""

    def side(values, schema="", tools="", choice="auto"):
        return [{"values": values, "schema": schema, "tools": tools, "choice": choice}]
    assert reader.evaluate(read, side({"temperature": 0, "top_k": 5, "stop": "a\n\\n", "stop_token_ids": "1, 2"})) == {
        "temperature": 0, "top_k": 5, "stop": ["a", "\n"], "stop_token_ids": [1, 2]}
    assert reader.evaluate(read, side({"temperature": "?"})) == "temperature"
    assert reader.evaluate(read, side({"top_k": 1.5})) == "top_k"
    assert reader.evaluate(read, side({"logit_bias": "[1]"})) == "logit_bias"
    assert reader.evaluate(read, side({}, "{")) == "schema"
    assert reader.evaluate(read, side({}, tools='[{"name": "f"}]', choice="g")) == "tool_choice"
    schema = reader.evaluate(read, side({}, json.dumps({"type": "object"})))
    assert schema["response_format"]["json_schema"]["schema"] == {"type": "object"}
