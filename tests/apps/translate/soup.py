"""HTML as people write it: pieces of pages, whole and broken, in any order; and translators that break all they can."""

import random
import re
from collections import Counter
from html.parser import HTMLParser

from hypothesis import strategies as st

PIECES = ["Hello ", "world", " & ", "&amp;", "a < b", "1,000", "<", "&lt;p&gt;", " ", "\n",
          "Stop. ", "你好。", "\ue001",
          "<1>", "<b>", "</b>", "<i class=x>", "</i>", "<a href='u?a=1&amp;b=2' title=\"Go on\">", "</a>", "<code>",
          "x_y</code>", "<code>f()</code>", "<br>", "<br/>", "<p>", "</p>", "<div id=a>", "</div>", "<ul><li>",
          "</ul>", "<td>", "<img alt='a cat' src=x>", "<!-- note -->", "<!-->", "<!x>", "<?php ?>", "</>",
          "<script>if (a<b) '</p>'</script>", "<style>p{}</style>", "<pre>\n x</pre>", "<svg><title>t</title></svg>",
          "<span translate=no>Ayllu</span>", "<title>Page</title>", "<textarea>t</textarea>", "<a href=\"x", "<p a='",
          "<input type=submit value=Send>", "<meta name=description content=words>", "<h1>", "</h1>", "<em>one</em>",
          "<span class=notranslate>", "</span>", "{name}", "%s", "http://x.y/z."]
soups = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
BLOCK_OUT = {"b", "i", "a", "em", "span", "img", "code"}


class Seen(HTMLParser):
    """The tags that another reader finds."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.all: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        kept = [(k, v) for k, v in attrs if k not in ("title", "alt", "content", "value")]
        self.all.append(f"<{tag} {kept}>")

    def handle_endtag(self, tag):
        self.all.append(f"</{tag}>")

    @property
    def blocks(self) -> list[str]:
        return [t for t in self.all if re.match(r"</?(\w+)", t)[1] not in BLOCK_OUT]

    @property
    def inline(self) -> Counter:
        return Counter(t for t in self.all if re.match(r"</?(\w+)", t)[1] in BLOCK_OUT)


def asked(messages) -> str:
    """The text that a model is to translate, without the order."""
    return re.sub(r"^<<<|>>>$|^Translate into \w+: |^翻译成.文：", "", messages[-1]["content"])


def vandal(seed: int):
    """An answer that loses, doubles, crosses and invents marks, or says nothing."""
    def says(messages) -> str:
        text = asked(messages)
        rng = random.Random(f"{seed}{text}")
        pieces = re.findall(r"<[^<>]*>|[^<>]+|.", text)
        match rng.randrange(6):
            case 0:
                rng.shuffle(pieces)
                return "".join(pieces)
            case 1:
                return "".join(p for p in pieces if rng.random() < 0.7)
            case 2:
                return "".join(p * rng.randrange(3) for p in pieces)
            case 3:
                return "</p><script>x</script><7>&amp;" + text[::-1]
            case 4:
                return ""
        return text.upper()
    return says
