"""What all pages of results share: a shell, a look, a few lines of script, and words in English and Chinese.

Beside a page's module lie its words (NAME.toml) and what it adds to the look and the script (NAME.css, NAME.js).
"""

import tomllib
from html import escape
from pathlib import Path
from string import Template
from typing import Any

SHARED = Path(__file__).with_name("page")


class Words:
    """The words of a page, from NAME.toml: in [words] stand pairs of English and Chinese."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tables: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        self.words: dict[str, tuple[str, str]] = self.tables["words"]

    def both(self, key: str, *values: Any) -> str:
        """Both languages; the page shows one of them."""
        return spans(*(text.format(*values) for text in self.words[key]))

    def section(self, key: str, body: str, note: str = "") -> str:
        """A part of the page under a heading; nothing where there is no body."""
        note = f'<p class="dim">{note}</p>' if note else ""
        return f'<section id="{key}"><header><h2>{self.both(key)}</h2></header>{note}{body}</section>' if body else ""

    def page(self, steps: str, *, name: str = "", model: str = "", chips: str = "", pick: str = "") -> str:
        """The whole page as text; `name` stands in its title."""
        style, script = ("".join(file.read_text(encoding="utf-8") for path in (SHARED, self.file)
                                 if (file := path.with_suffix(end)).exists()) for end in (".css", ".js"))
        return Template(SHARED.with_suffix(".html").read_text(encoding="utf-8")).substitute(
            title=self.both("title", name), plain_title=escape(self.words["title"][0].format(name)), style=style,
            intro=self.both("intro"), theme=self.both("theme"), script=script, model=model, chips=chips, pick=pick,
            steps=steps)


def spans(english: str, chinese: str) -> str:
    """Two texts, of which the page shows one."""
    return f'<span lang="en">{escape(english)}</span><span lang="zh">{escape(chinese)}</span>'
