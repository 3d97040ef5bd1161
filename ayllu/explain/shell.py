"""What all pages of results share: a shell, a look, a few lines of script, and words in English and Chinese.

Beside a page's module lie its words (NAME.toml) and what it adds to the look and the script (NAME.css, NAME.js).
"""

import tomllib
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

SHARED = Path(__file__).with_name("page")


@cache
def read_words(file: Path) -> dict[str, Any]:
    """The tables of a page's words; in [words] stand pairs of English and Chinese."""
    return tomllib.loads(file.read_text(encoding="utf-8"))


def spans(english: str, chinese: str) -> str:
    """Two texts, of which the page shows one."""
    return f'<span lang="en">{escape(english)}</span><span lang="zh">{escape(chinese)}</span>'


def fill(own: Path, steps: str, *, name: str = "", model: str = "", chips: str = "", pick: str = "") -> str:
    """The whole page as text; `own` is its words' file, `name` stands in its title."""
    words = {key: [text.format(name) for text in read_words(own)["words"][key]] for key in ("title", "intro", "theme")}
    style, script = ("".join(file.read_text(encoding="utf-8") for path in (SHARED, own)
                             if (file := path.with_suffix(end)).exists()) for end in (".css", ".js"))
    return Template(SHARED.with_suffix(".html").read_text(encoding="utf-8")).substitute(
        {key: spans(*pair) for key, pair in words.items()}, plain_title=escape(words["title"][0]), style=style,
        script=script, model=model, chips=chips, pick=pick, steps=steps)
