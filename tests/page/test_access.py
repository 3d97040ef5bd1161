"""For everybody: names, order, targets, contrast as painted, a phone's width, both languages, the keyboard alone."""

import re
from pathlib import Path

import pytest
from page.acting import answer_with, answers, finished, say
from page.contrast import contrast
from server.live import serving

FAULTS = """() => {
  const faults = [];
  const visible = [...document.querySelectorAll('button, a[href], input, select, textarea')]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('[inert], [aria-hidden=true]'));
  for (const e of visible) {
    const what = e.outerHTML.slice(0, 90);
    const labels = [...(e.labels ?? [])].map(l => l.textContent).join('');
    const name = e.getAttribute('aria-label') || labels || e.textContent;
    if (!name.trim()) faults.push('no name: ' + what);
    const box = e.getBoundingClientRect();
    const hidden = e.type === 'radio' || e.classList.contains('unseen');
    if (!hidden && e.type !== 'range' && e.localName !== 'a' && (box.width < 23.5 || box.height < 23.5))
      faults.push('small: ' + what);
    if (e.tabIndex > 0) faults.push('tab order: ' + what);
    const landmarks = 'main, aside, header, nav[aria-label], section[aria-label], dialog, #toasts';
    if (!e.closest(landmarks)) faults.push('no landmark: ' + what);
    const id = e.getAttribute('aria-controls');
    if (id && !document.getElementById(id)) faults.push('controls nothing: ' + what);
  }
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push('twice: ' + id);
  for (const e of document.querySelectorAll('[aria-describedby]'))
    if (!document.getElementById(e.getAttribute('aria-describedby'))) faults.push('described by nothing');
  for (const e of document.querySelectorAll('img:not([alt])')) faults.push('no alt');
  const seen = (query) => [...document.querySelectorAll(query)]
    .filter(e => e.checkVisibility({visibilityProperty: true}));
  const levels = seen('h1, h2, h3, h4, h5, h6').map(e => Number(e.localName[1]));
  levels.forEach((level, i) => { if (i && level > levels[i - 1] + 1) faults.push('heading ' + levels); });
  const marks = seen('main, aside, nav, section[aria-label]:not([role])').map(e => e.localName + e.ariaLabel);
  marks.forEach((mark, i) => { if (marks.indexOf(mark) !== i) faults.push('landmark twice: ' + mark); });
  for (const tag of ['main', 'h1']) if (document.querySelectorAll(tag).length !== 1) faults.push(tag);
  if (document.documentElement.scrollWidth > innerWidth) faults.push('wider than the window');
  return faults;
}"""

SOLID = """
  const solid = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(c)) return c;
    }
  };
"""

PAINTED = "() => {" + SOLID + """
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Map();
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true, opacityProperty: true}) ||
        e.closest(':disabled, .unseen, [inert], option')) continue;
    found.set(getComputedStyle(e).color + '|' + solid(e), e.outerHTML.slice(0, 80));
  }
  return [...found];
}"""


EDGES = "() => {" + SOLID + """
  return [...document.querySelectorAll('aside :is(textarea, select, input:not([type=range], [type=checkbox])), .box')]
    .filter(e => !e.closest('.foot, .unseen') && e.checkVisibility({visibilityProperty: true}))
    .map(e => [getComputedStyle(e).borderTopColor + '|' + solid(e.parentElement), e.outerHTML.slice(0, 80)]);
}"""


def hexadecimal(colour: str) -> str:
    return "#" + "".join(f"{int(float(part)):02x}" for part in re.findall(r"[\d.]+", colour)[:3])


@pytest.mark.parametrize("options", [
    {"width": 1200}, {"width": 360, "height": 700, "locale": "zh-CN"}, {"width": 1200, "color_scheme": "dark"},
], ids=["desktop", "phone, Chinese", "dark"])
def test_names_targets_and_contrast(opened, options):
    page = opened(**options)
    text = "A [link](https://e.org) and `code`\n\n|a|b|\n|-|-|\n|1|2|\n\n```py\nx" + "y" * 200 + "\n```\n> q"
    answer_with(page, text)
    assert page.evaluate(FAULTS) == []
    say(page, "w" * 300)
    finished_in_any_language(page)
    page.locator("[aria-controls=drawer]").click()
    assert page.evaluate(FAULTS) == []
    assert weaker(page.evaluate(PAINTED), 4.5) == {}
    edges = page.evaluate(EDGES)
    assert len(edges) > 12
    assert weaker(edges, 3) == {}


def weaker(found: list[list[str]], least: float) -> dict[str, tuple[str, str, float]]:
    """WCAG 2.2, level AA: 4.5 to 1 for text (1.4.3), 3 to 1 for the edges of fields (1.4.11)."""
    weak = {}
    for pair, element in found:
        ink, ground = map(hexadecimal, pair.split("|"))
        if contrast(ink, ground) < least:
            weak[element] = (ink, ground, round(contrast(ink, ground), 2))
    return weak


def finished_in_any_language(page) -> None:
    page.locator(".body.answer table").wait_for()
    page.locator(".composer .main:visible .icon").wait_for()


def test_the_language_follows_the_browser_and_the_switch(opened):
    page = opened(locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_role("button", name="新建").wait_for()
    page.locator("#composer").fill("草稿")
    page.get_by_label("语言").select_option("en")
    page.get_by_role("button", name="New").wait_for()
    assert page.locator("#composer").input_value() == "草稿"
    page.reload()
    page.get_by_role("button", name="New").wait_for()
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_theme_can_be_chosen_and_is_remembered(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours: As the system").click()
    page.get_by_role("button", name="Colours: Light").click()
    page.get_by_role("button", name="Colours: Dark").wait_for()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Colours: Dark").wait_for()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Colours: Dark").click()
    page.emulate_media(color_scheme="dark")              # as the system again, which is dark now
    page.get_by_role("button", name="Colours: As the system").wait_for()
    assert page.evaluate(ground) == dark


def test_the_list_on_a_phone_opens_and_closes_and_gives_the_focus_back(opened):
    page = opened(width=360, height=700)
    opener = page.get_by_role("button", name="Conversations")
    search = page.get_by_role("searchbox")
    for close in (lambda: page.mouse.click(350, 300), lambda: page.keyboard.press("Escape")):
        opener.click()
        search.wait_for()
        assert opener.get_attribute("aria-expanded") == "true"
        close()
        search.wait_for(state="hidden")
        assert opener.get_attribute("aria-expanded") == "false"
    assert opener.evaluate("button => button === document.activeElement")
    page.get_by_role("button", name="Settings", exact=True).click()
    assert page.evaluate("document.activeElement.ariaLabel") == "Close the settings"


def test_the_keyboard_is_enough(page):
    answer_with(page, "one")
    page.locator("#composer").focus()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    finished(page)
    assert page.locator(".body.yours").inner_text() == "first line\nsecond"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Edited text"
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "Export as Markdown"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    assert page.get_by_role("menu").count() == 0
    assert "More about" in page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_a_word_that_is_being_put_together_is_not_sent(page):
    bodies = answer_with(page, "one")
    page.locator("#composer").fill("ni")
    page.evaluate("""document.getElementById('composer').dispatchEvent(
        new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))""")
    assert page.locator("#composer").input_value() == "ni"
    assert bodies == []


def test_listeners_are_told_and_nothing_moves_for_who_wants_no_motion(opened):
    page = opened(reduced_motion="reduce")
    answer_with(page, "a spoken answer")
    say(page, "hello")
    finished(page)
    page.locator("#live").get_by_text("The answer is complete: a spoken answer").wait_for(state="attached")
    page.route("**/v1/chat/completions", lambda route: None)
    say(page, "again")
    page.locator(".dots i").first.wait_for()
    assert page.evaluate("getComputedStyle(document.querySelector('.dots i')).animationName") == "none"


def test_code_is_copied(opened, server):
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    answer_with(page, "```py\nprint(1)\n```")
    say(page, "code")
    finished(page)
    page.get_by_role("button", name="Copy this code").click()
    page.locator(".done").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "print(1)"
    assert len(answers(page)) == 1


@pytest.mark.slow
def test_the_bundled_model_writes_on(opened):
    """No mocks and no tiny model: `ayllu serve` as it comes, in the mode that a base model is good for."""
    with serving(Path("ayllu-mini"), engine={"cache_mib": 64}) as live:
        page = opened(live.url)
        assert page.get_by_label("Continue a text").is_checked()
        page.get_by_role("button", name="Once upon a time").click()
        page.locator(".stats").filter(has_text=re.compile("ended by itself|cut:")).wait_for(timeout=120_000)
        n_tokens = int(re.match(r"(\d+) tokens", page.locator(".stats").last.inner_text())[1])
        assert page.locator(".prose").inner_text().startswith("Once upon a time")
        page.get_by_role("button", name="Tokens", exact=True).click()
        page.locator(".token").nth(n_tokens - 1).wait_for()
        assert page.locator(".token").count() == n_tokens
