"""Both languages side by side: in HTML each text in two columns of its own place, in Markdown one below the other."""

import re

from ayllu.apps.translate.splice import Segment

STYLE = ('<style>.ayllu-pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,14em),1fr));'
         'column-gap:1.5em}.ayllu-pair>[lang]+[lang]{border-inline-start:2px solid #8884;padding-inline-start:.75em}'
         '</style>')
_OWN = re.compile(r"""(<[a-zA-Z][^<>]*?)\s(?:id|name)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+)""")


def beside_html(segment: Segment, old: str, new: str, source: str, target: str) -> str:
    """Both in a grid that becomes two rows where there is no room. Titles and attributes hold no tags: a stroke."""
    if segment.kind == "raw":
        return f"{old} / {new}"
    if segment.kind != "text":
        return new
    copy = _OWN.sub(r"\1", new)                          # an id may stand once in a page
    return (f'<span class="ayllu-pair"><span lang="{source}">{old}</span><span lang="{target}">{copy}</span></span>')


def style_html(page: str) -> str:
    """The page with the few rules that its pairs need."""
    match = re.search(r"</head\s*>|<body[\s>]", page, re.IGNORECASE)
    return page[:match.start()] + STYLE + page[match.start():] if match else STYLE + page


def beside_markdown(segment: Segment, old: str, new: str, source: str, target: str) -> str:
    """The translation on a line of its own in the same paragraph, heading or cell."""
    return f"{old}<br>{new}" if segment.kind == "text" else new
