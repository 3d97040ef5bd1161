"""The files of the page without a browser: headers, what they may not hold, words in both languages, contrast."""

import re
from pathlib import Path

import httpx
import pytest
from page.acting import KEY
from page.contrast import contrast
from server.live import serving

from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.page import FILES, UI

SCRIPTS = {path.relative_to(UI / "js").as_posix(): path.read_text(encoding="utf-8")
           for path in (UI / "js").rglob("*.js")}


def test_every_file_is_served_with_a_strict_policy(server):
    assert {path for path in UI.rglob("*") if path.is_file()} == set(FILES.values())
    for name in FILES:
        answer = httpx.get(server.url + name)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_unchanged_file_is_not_sent_again(server):
    tag = httpx.get(server.url).headers["etag"]
    assert httpx.get(server.url, headers={"if-none-match": tag}).status_code == 304
    assert httpx.get(server.url, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/ui/", "/ui/../page.py", "/ui/..%2fpage.py", "/ui/js", "/ui//etc/passwd",
                                  "/ui/index.html"])
def test_nothing_else_is_served(server, path):
    assert httpx.get(server.url + path).status_code == 404


def test_the_page_needs_no_key_and_everything_else_does(chat_checkpoint):
    with serving(chat_checkpoint, door=Door(keys=Keys([key_of(KEY)]))) as live:
        assert {httpx.get(live.url + name).status_code for name in FILES} == {200}
        for name in ("/v1/models", "/tokenizer_info", "/metrics", "/ui/other.js", "/openapi.json"):
            assert httpx.get(live.url + name).status_code == 401


def test_no_file_breaks_the_policy_or_reaches_outside():
    html = (UI / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)|javascript:", html)
    for name, text in [*SCRIPTS.items(), ("index.html", html)]:
        assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\(|new Function|srcdoc", text), name
        outside = set(re.findall(r"""["'(]\s*(?:https?:)?//[\w.]+""", text)) - {'"http://www.w3.org'}
        assert not outside, (name, outside)
    for path in (UI / "css").glob("*.css"):
        assert not re.search(r"@import|url\(", path.read_text(encoding="utf-8")), path


def test_all_scripts_are_fetched_at_once_instead_of_one_after_the_other():
    html = (UI / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'<link rel="modulepreload" href="ui/js/([\w./]+)">', html)) == set(SCRIPTS) - {"main.js"}


def test_files_are_small():
    assert {name: n for name, text in SCRIPTS.items() if (n := text.count("\n")) > 200} == {}


def words(name: str) -> dict[str, str]:
    text = SCRIPTS[f"words.{name}.js"] + SCRIPTS[f"words.drawer.{name}.js"] + SCRIPTS[f"words.shell.{name}.js"]
    for script, both in SCRIPTS.items():                 # of the rooms: {en: {...}, zh: {...}}
        if script.endswith(".words.js"):
            text += both.split("\n  zh: {")[name == "zh"]
    return dict(re.findall(r'^ +"?([\w.]+)"?:\s+"((?:[^"\\]|\\.)*)",$', text, re.MULTILINE))


def test_both_languages_say_the_same_things():
    en, zh = words("en"), words("zh")
    assert list(en) == list(zh)
    assert len(en) > 150
    for key in en:
        assert set(re.findall(r"\{\w+\}", en[key])) == set(re.findall(r"\{\w+\}", zh[key])), key


def test_every_word_that_the_scripts_ask_for_exists():
    asked = {key for text in SCRIPTS.values() for key in re.findall(r'\bt\(\s*"([\w.]+)"', text)}
    assert len(asked) > 80
    assert asked <= set(words("en"))


PAIRS = [*((ink, ground) for ink in ("ink", "soft") for ground in ("paper", "panel", "raised", "code")),
         ("accent", "paper"), ("accent", "raised"), ("on-accent", "accent"), ("tint-ink", "tint"),
         ("wrong", "panel"), ("wrong", "wrong-ground"), ("ink", "wrong-ground"), ("warn", "paper"),
         *(("ink", f"p{step}") for step in range(5))]


def palettes() -> list[dict[str, str]]:
    text = (UI / "css" / "theme.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", text)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def test_text_can_be_read_in_both_themes():
    light, by_system, by_choice = palettes()
    assert by_system == by_choice
    for palette in (light, by_system):
        weak = {pair: round(contrast(palette[pair[0]], palette[pair[1]]), 2) for pair in PAIRS
                if contrast(palette[pair[0]], palette[pair[1]]) < 4.5}
        assert weak == {}
        for ground in ("paper", "panel", "raised", "code"):
            assert contrast(palette["edge"], palette[ground]) >= 3       # edges of fields


def test_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_pages_are_named_in_the_package_data():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"server/ui/**/*"' in text
