"""What is translated in a source, by its place, and the source with other words there: all else keeps its bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ayllu.apps.translate.marks import Parts, Tag, has_letters, joined, numbered

BLANK = " \t\n\r\f"


@dataclass(frozen=True)
class Piece:
    """A stretch of text in the source, and what it says to a reader."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Segment:
    """What is translated as one: a paragraph, a title, a cell. `write` turns words into source."""

    start: int
    end: int
    parts: Parts
    write: Callable[[str], str] = str
    kind: str = "text"                                   # an attribute's name, or "raw" where no tag may stand
    is_filled: bool = False                              # its place holds something else (PO): written even if equal
    frame: tuple[str, str] = ("", "")                    # blanks and marks written around it
    render: Callable[[Parts, Callable[[Tag], str]], str] | None = None       # in the place of `write`, if needed


def segments_of(source: str, items: Sequence[Piece | Tag], write: Callable[[str], str] = str,
                kind: str = "text") -> list[Segment]:
    """The segments of a run of texts and inline marks. A mark without a partner in the run stands between segments."""
    found: list[Segment] = []
    if not any(isinstance(item, Piece) and has_letters(item.text) for item in items):
        return found                                     # most runs of most pages
    for run in _split(items):
        inner = _trimmed(source, run)
        if not inner:
            continue
        parts = numbered([item if isinstance(item, Tag) else item.text for item in inner])
        if any(isinstance(part, str) and has_letters(part) for part in parts):
            found.append(Segment(inner[0].start, inner[-1].end, parts, write, kind))
    return found


def _split(items: Sequence[Piece | Tag]) -> Iterator[list[Piece | Tag]]:
    lonely = _lonely(items)
    run: list[Piece | Tag] = []
    for i, item in enumerate(items):
        if i in lonely:
            yield run
            run = []
        else:
            run.append(item)
    yield run


def _lonely(items: Sequence[Piece | Tag]) -> set[int]:
    """Marks whose partner isn't here, pairs that cross another, and pairs with such a mark between them."""
    stack: list[int] = []
    lonely: set[int] = set()
    torn = 0                                             # so many of the stack have a lonely mark between their ends
    for i, item in enumerate(items):
        if not isinstance(item, Tag) or item.kind == "hole":
            continue
        if item.kind == "open":
            stack.append(i)
            continue
        place = next((k for k in range(len(stack) - 1, max(-1, len(stack) - 100), -1)
                      if isinstance(other := items[stack[k]], Tag) and other.number == item.number), None)
        if place is None:
            lonely.add(i)
            torn = len(stack)
            continue
        crossed = stack[place + 1:]
        lonely.update(crossed)
        if place < torn or crossed:
            lonely.update((i, stack[place]))
            torn = place
        del stack[place:]
    return lonely | set(stack)


def _trimmed(source: str, run: list[Piece | Tag]) -> list[Piece | Tag]:
    """The run without blanks, pairs and tags at its edges that no word stands before or after."""
    low, high = 0, len(run)
    while low < high:
        first, last = run[low], run[high - 1]
        if _is_edge(source, first):
            low += 1
        elif _is_edge(source, last):
            high -= 1
        elif high - low > 1 and _pair(first, run[low + 1]):
            low += 2
        elif high - low > 1 and _pair(run[high - 2], last):
            high -= 2
        elif high - low > 1 and _pair(first, last):
            low, high = low + 1, high - 1
        else:
            break
    inner = run[low:high]
    if inner and isinstance(inner[0], Piece):
        inner[0] = _stripped(source, inner[0], left=True)
    if inner and isinstance(inner[-1], Piece):
        inner[-1] = _stripped(source, inner[-1], left=False)
    return inner


def _is_edge(source: str, item: Piece | Tag) -> bool:
    if isinstance(item, Tag):
        return item.kind == "hole" and not item.hides
    return not source[item.start:item.end].strip(BLANK)


def _pair(a: Piece | Tag, b: Piece | Tag) -> bool:
    return isinstance(a, Tag) and isinstance(b, Tag) and a.kind == "open" and b.kind == "close" and \
        a.number == b.number


def _stripped(source: str, piece: Piece, left: bool) -> Piece:
    raw = source[piece.start:piece.end]
    if left:
        return replace(piece, start=piece.end - len(raw.lstrip(BLANK)), text=piece.text.lstrip(BLANK))
    return replace(piece, end=piece.start + len(raw.rstrip(BLANK)), text=piece.text.rstrip(BLANK))


@dataclass(frozen=True)
class _Edit:
    start: int
    end: int
    text: str


def splice(source: str, segments: Sequence[Segment], translations: Sequence[Parts | None],
           compose: Callable[[Segment, str, str], str] | None = None) -> str:
    """The source with each segment's translation in its place (None: as it was). A segment inside another's tag (an
    attribute) is written there. `compose(segment, old, new)` may put both side by side."""
    order = sorted(zip(segments, translations, strict=True), key=lambda pair: (pair[0].start, -pair[0].end))
    out: list[_Edit] = []
    i = 0
    while i < len(order):
        outer, translation = order[i]
        j = i + 1
        while j < len(order) and order[j][0].start < outer.end:
            j += 1
        inner = [_edit(source, *pair, [], compose) for pair in order[i + 1:j]]
        out.append(_edit(source, outer, translation, inner, compose))
        i = j
    return _rendered(source, 0, len(source), out)


def _edit(source: str, segment: Segment, translation: Parts | None, inner: list[_Edit],
          compose: Callable[[Segment, str, str], str] | None) -> _Edit:
    old = _rendered(source, segment.start, segment.end, inner)
    if translation is None or (not segment.is_filled and _same(segment.parts, translation)):
        return _Edit(segment.start, segment.end, old)
    def original(tag: Tag) -> str:
        return _rendered(source, tag.start, tag.end, inner)

    text = segment.render(translation, original) if segment.render else "".join(
        segment.write(part) if isinstance(part, str) else
        segment.write(part.text) if part.text is not None else original(part) for part in translation)
    text = segment.frame[0] + text + segment.frame[1]
    return _Edit(segment.start, segment.end, compose(segment, old, text) if compose else text)


def _same(a: Parts, b: Parts) -> bool:
    def plain(parts: Parts) -> Parts:
        return joined(part if isinstance(part, str) or part.text is None else part.text for part in parts)
    return [p if isinstance(p, str) else (p.kind, p.start, p.end) for p in plain(a)] == \
           [p if isinstance(p, str) else (p.kind, p.start, p.end) for p in plain(b)]


def _rendered(source: str, start: int, end: int, edits: list[_Edit]) -> str:
    out, place = [], start
    for edit in edits:
        if start <= edit.start and edit.end <= end:
            out += [source[place:edit.start], edit.text]
            place = edit.end
    return "".join([*out, source[place:end]])
