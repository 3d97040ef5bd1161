"""Pages of the documentation: links lead somewhere, and a page and its Chinese twin say the same things."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"),
                *(ROOT / "ayllu" / "weights").rglob("*.md")])
TWINS = [page for page in PAGES if page.name.endswith(".zh-CN.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CHINESE = re.compile(r"[一-鿿]")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its code, in which brackets mean other things."""
    return re.sub(r"`[^`\n]*`", "`", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL))


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page))


def headings(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(#+) (.*)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that headings get: lower case, no punctuation, hyphens for spaces."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in headings(page)}


def fences(page: Path) -> list[str]:
    """Code as it stands; of a diagram only that there is one, for its words are translated."""
    found = re.findall(r"^```\w*\n.*?^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return ["a diagram" if fence.startswith("```mermaid") else fence for fence in found]


def test_there_are_pages():
    assert {"README.md", "README.zh-CN.md", "install.md", "faq.md", "spec-notes.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        target, _, fragment = link.partition("#")
        if re.match(r"(https|mailto):", link):
            continue
        place = (page.parent / target).resolve() if target else page
        has_anchor = not fragment or place.suffix != ".md" or fragment in anchors(place)
        if not place.exists() or not has_anchor:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("twin", TWINS, ids=lambda page: page.name)
def test_twins_agree(twin):
    page = twin.with_name(twin.name.replace(".zh-CN", ""))
    assert [level for level, _ in headings(page)] == [level for level, _ in headings(twin)]
    assert fences(page) == fences(twin)
    rows = [sum(line.startswith("|") for line in text_of(p).splitlines()) for p in (page, twin)]
    assert rows[0] == rows[1]
    same = [sorted({link.replace(".zh-CN", "").partition("#")[0] for link in links(p)}) for p in (page, twin)]
    assert same[0] == same[1]


def test_every_page_of_the_documentation_has_its_twin():
    pages = [page for page in (ROOT / "docs").glob("*.md") if page not in TWINS]
    assert [page.name for page in (ROOT / "README.md", *pages) if page.with_suffix(".zh-CN.md") not in TWINS] == []


@pytest.mark.parametrize("twin", TWINS, ids=lambda page: page.name)
def test_a_chinese_page_leads_to_chinese_pages(twin):
    """But for the one link to its own English."""
    english = twin.with_name(twin.name.replace(".zh-CN", ""))
    targets = [(twin.parent / link.partition("#")[0]).resolve() for link in links(twin) if not link.startswith("http")]
    assert [t.name for t in targets if t != english and t.with_suffix(".zh-CN.md") in TWINS] == []


@pytest.mark.parametrize("twin", TWINS, ids=lambda page: page.name)
def test_the_chinese_page_is_chinese(twin):
    """At least one letter in four is Chinese; code and links, whose words may be titles, are left out."""
    plain = LINK.sub("", prose(twin))
    letters = [c for c in plain if c.isalpha()]
    assert len([c for c in letters if CHINESE.match(c)]) > len(letters) / 4
