"""Both languages side by side: in HTML each text in two columns of its own place, else one below the other."""

import re

from ayllu.apps.translate.marks import tags
from ayllu.apps.translate.splice import Segment

STYLE = ('<style>.ayllu-pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,14em),1fr));'
         'column-gap:1.5em}.ayllu-pair>[lang]+[lang]{border-inline-start:2px solid #8884;padding-inline-start:.75em}'
         '</style>')
_OWN = re.compile(r"""(<[a-zA-Z][^<>]*?)\s(?:id|name)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+)""")


def beside_html(segment: Segment, old: str, new: str, source: str, target: str) -> str:
    """Both in a grid that becomes two rows where there is no room. Titles and options hold no tags: a stroke."""
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


def beside_lines(segment: Segment, old: str, new: str, source: str, target: str) -> str:
    """The translation on the line below."""
    return f"{old}\n{new}"


def even_lines(text: str) -> str:
    """The line ends that the file has."""
    return re.sub(r"(?<!\r)\n", "\r\n", text) if "\r\n" in text else text


def beside_docx(segment: Segment, old: str, new: str, source: str, target: str) -> str:
    """The translation below, in the same paragraph; pictures, notes and tabs stay with the source."""
    for tag in tags(segment.parts):
        if tag.kind == "hole" and tag.text is None:
            hole = old[tag.start - segment.start:tag.end - segment.start]
            new = new.replace(hole, '<w:r><w:t xml:space="preserve"> </w:t></w:r>', 1)
    return f"{old}<w:r><w:br/></w:r>{new}"
