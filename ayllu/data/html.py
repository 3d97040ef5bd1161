"""The text of a web page: what stands in its main part, one line for each block, without scripts, styles and menus."""

import re
from typing import Any

from ayllu.errors import extra

LEFT_OUT = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "head", "nav",
    "header", "footer", "aside", "form", "button", "select", "textarea",
})
BLOCKS = frozenset({
    "address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "main", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
})


def html_text(page: str, rows: bool = False) -> str:
    """The text of `<main>`, else of the only `<article>`, else of `<body>`; entities and white space resolved.

    Headings, paragraphs, list items and table cells are lines of their own; `<pre>` keeps its line breaks. `rows`: one
    of a table is a line, its cells with the names that a first row of `<th>` gives them.
    """
    with extra("data", "reading HTML"):
        from selectolax.lexbor import LexborHTMLParser
    tree = LexborHTMLParser(page)
    mains, articles = tree.css("main"), tree.css("article")
    root = mains[0] if mains else articles[0] if len(articles) == 1 else tree.body
    return _text(root, rows) if root is not None else ""


def _text(root: Any, rows: bool) -> str:
    """Walked with a stack of its own: pages nest deeper than Python's recursion allows."""
    parts: list[str] = []
    names: list[str] = []                                # of the columns
    todo: list[tuple[Any, bool]] = [(root, False)]       # a node with whether it is kept as typed, or a line break
    while todo:
        node, is_pre = todo.pop()
        if isinstance(node, str):
            parts.append(node)
        elif node.is_text_node:
            text = node.text_content or ""
            parts.append(text.replace("\n", "\x02").replace(" ", "\x01") if is_pre else text.replace("\n", " "))
        elif node.tag == "br":
            parts.append("\n")
        elif rows and node.tag == "tr":                  # tables within cells are read as text: no recursion goes on
            cells = [cell for cell in node.iter() if cell.tag in ("td", "th")]
            said = [" ".join(_text(cell, False).split()) for cell in cells]
            if cells and all(cell.tag == "th" for cell in cells):
                names = said
            elif len(names) == len(said):
                said = [f"{name}: {cell}" if name and cell else cell for name, cell in zip(names, said, strict=True)]
            parts.append("\n" + " | ".join(filter(None, said)) + "\n")
        elif node.is_element_node and (node.tag not in LEFT_OUT or node is root):
            border = "\n" if node.tag in BLOCKS else ""
            is_pre = is_pre or node.tag == "pre"
            names = [] if node.tag == "table" else names
            children = list(node.iter(include_text=True))
            todo.append((border, False))
            todo += [(child, is_pre) for child in reversed(children)]
            parts.append(border)
    return _tidy("".join(parts))


def _tidy(text: str) -> str:
    """White space as a browser shows it; \\x01 and \\x02 stand for what `<pre>` keeps."""
    lines = (re.sub(r"[ \t\r\f]+", " ", line).strip(" ") for line in text.split("\n"))
    return "\n".join(line for line in lines if line).replace("\x01", " ").replace("\x02", "\n").strip("\n")
