"""Fifty real pages of the documentation on this machine, translated: is everything but the words what it was?

HTML files are looked for in the folders of Python packages, of Debian's and others' documentation, at most five of one
folder's tree, the same ones in every run on the same files. Each is translated by `ayllu translate`'s own code with a
translator that breaks all it can (it loses, doubles, crosses and invents marks, and answers nonsense); `--model` takes
a real one instead. Two other readers, html.parser and html5lib, compare block tags in order, inline tags, attributes,
links, code, scripts and comments of source and result; what html5lib's strict parser takes must still be taken.

    python benchmarks/translate_pages.py [--root FOLDER ...] [--model MODEL] [--pages N] [--quick] [--json FILE]
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import html5lib

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from apps.scripted import ScriptedSpeaker
from apps.translate.soup import vandal

from ayllu.apps.speaker import LocalSpeaker
from ayllu.apps.translate.document import translate_bytes
from ayllu.apps.translate.formats import decode, format_of
from ayllu.apps.translate.pages import INLINE, OPAQUE_INLINE, TRANSLATED, VOID_INLINE
from ayllu.apps.translate.splice import splice
from ayllu.apps.translate.translator import Translator
from ayllu.errors import DataError
from ayllu.files import write_json
from ayllu.log import say, setup

ROOTS = ("/usr/lib/python3", "/usr/share/doc", "/usr/share/javascript", "/usr/lib/node_modules",
         "/usr/lib/google-cloud-sdk", str(Path.home() / ".rustup" / "toolchains"), sys.base_prefix, sys.prefix)
PAGES, OF_ONE_TREE = 50, 5
SIZES = (1_500, 600_000)                                 # bytes; below stand redirects, above tables of other things
CHECKS = ("identity", "blocks", "inline", "links", "code", "comments", "valid", "tree")
KEPT_TEXT = {"pre", "script", "style", *OPAQUE_INLINE}


class Seen(HTMLParser):
    """What html.parser finds in a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.inline: Counter[str] = Counter()
        self.links: list[str] = []
        self.kept: list[str] = []
        self.comments: list[str] = []
        self._inside: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Attributes that hold words, and the page's language, may change."""
        words = TRANSLATED | ({"lang", "xml:lang"} if tag == "html" else set()) | \
            ({"content"} if tag == "meta" else {"value"} if tag == "input" else
             {"label"} if tag in ("option", "optgroup", "track") else set())
        said = f"<{tag} {[(k, v) for k, v in attrs if k not in words]}>"
        self.links += [v for k, v in attrs if k in ("href", "src", "action", "srcset", "data") and v is not None]
        if tag in INLINE | VOID_INLINE | KEPT_TEXT:
            self.inline[said] += 1
        else:
            self.blocks.append(said)
        if tag in KEPT_TEXT:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """As above."""
        if tag in INLINE | VOID_INLINE | KEPT_TEXT:
            self.inline[f"</{tag}>"] += 1
        else:
            self.blocks.append(f"</{tag}>")
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Code and scripts are kept; words are not compared."""
        if self._inside:
            self.kept.append(data)

    def handle_comment(self, data: str) -> None:
        """Comments are kept."""
        self.comments.append(data)


def main() -> int:
    """Find, translate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", action="append", help="look here instead")
    parser.add_argument("--model", help="a real model instead of one that breaks what it can")
    parser.add_argument("--pages", type=int, default=PAGES)
    parser.add_argument("--quick", action="store_true", help="8 pages")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup()
    pages = choose([Path(root) for root in options.root or ROOTS], 8 if options.quick else options.pages)
    breaker = ScriptedSpeaker(vandal(0), 100_000, name="vandal")
    speaker: Any = LocalSpeaker.load(options.model) if options.model else breaker
    found = [one for page in pages if (one := compare(page, speaker))]
    for one in found:
        bad = ", ".join(check for check in CHECKS if not one[check])
        say(f"{'not the same: ' + bad if bad else 'the same'}   {one['bytes']:>9,} bytes, {one['segments']:>5,} texts, "
            f"{one['seconds']:6.2f} s   {one['page']}")
    total = {check: sum(one[check] for one in found) for check in CHECKS}
    say(f"{len(found)} pages: " + ", ".join(f"{check} {n}" for check, n in total.items()) +
        f"; taken by html5lib's strict parser before: {sum(one['was_valid'] for one in found)}; "
        f"texts changed: {sum(one['changed'] for one in found):,} of {sum(one['segments'] for one in found):,}")
    if options.json:
        write_json(options.json, {"model": speaker.name, "pages": found, "total": total})
    worst = min(CHECKS, key=lambda check: total[check])
    print(f"worst ratio: {total[worst] / len(pages):.2f} ({worst})")
    return int(len(found) < len(pages) or any(n < len(found) for n in total.values()))


def choose(roots: Sequence[Path], n: int) -> list[Path]:
    """n pages, of as many trees as there are, in an order that the names alone decide."""
    trees: dict[str, list[Path]] = {}
    for root in roots:
        for path in sorted(root.rglob("*.html")) if root.is_dir() else []:
            if path.is_file() and not path.is_symlink() and SIZES[0] <= path.stat().st_size <= SIZES[1]:
                trees.setdefault("/".join(path.parent.relative_to(root).parts[:6]), []).append(path)
    chosen: list[Path] = []
    for tree in sorted(trees):
        random.Random(tree).shuffle(trees[tree])
    for depth in range(OF_ONE_TREE):
        chosen += [trees[tree][depth] for tree in sorted(trees) if len(trees[tree]) > depth]
    seen: set[bytes] = set()
    unique: list[Path] = []
    for path in chosen:
        raw = path.read_bytes()
        if raw not in seen:
            seen.add(raw)
            unique.append(path)
    return unique[:n]


def compare(page: Path, speaker: Any) -> dict[str, Any] | None:
    """One page before and after."""
    raw, format = page.read_bytes(), format_of(page.name)
    try:
        start = time.perf_counter()
        done = translate_bytes(raw, format, "zh" if speaker.name != "vandal" else "de",
                               lambda pair: Translator(speaker, pair), source="en")
        seconds = time.perf_counter() - start
    except DataError as error:
        say(f"{page}: {error}")
        return None
    source, result = decode(raw).text, decode(done.data).text
    segments = format.split(source)
    before, after = Seen(source), Seen(result)
    was_valid = is_valid(source)
    return {"page": str(page), "bytes": len(raw), "segments": len(segments), "seconds": round(seconds, 3),
            "changed": sum(n for how, n in done.report.get("by", {}).items() if how not in ("kept", "other")),
            "identity": splice(source, segments, [s.parts for s in segments]) == source,
            "blocks": before.blocks == after.blocks, "inline": before.inline == after.inline,
            "links": Counter(before.links) == Counter(after.links),
            "code": Counter(before.kept) == Counter(after.kept), "comments": before.comments == after.comments,
            "was_valid": was_valid, "valid": not was_valid or is_valid(result), "tree": tree(source) == tree(result)}


def is_valid(page: str) -> bool:
    """Whether html5lib's strict parser takes it."""
    try:
        html5lib.HTMLParser(strict=True).parse(page)
        return True
    except html5lib.html5parser.ParseError:
        return False


def tree(page: str) -> list[str]:
    """The block elements that a browser would build, in their order, each with its depth among blocks."""
    found: list[str] = []
    root = html5lib.parse(page, treebuilder="etree", namespaceHTMLElements=False)
    stack = [(root, 0)]
    while stack:
        element, depth = stack.pop()
        is_block = isinstance(element.tag, str) and element.tag not in INLINE | VOID_INLINE | KEPT_TEXT
        if is_block:
            found.append(f"{depth} {element.tag} {sorted(set(element.attrib) - TRANSLATED)}")
        stack += [(child, depth + is_block) for child in reversed(list(element))]
    return found


if __name__ == "__main__":
    sys.exit(main())
