"""Inline marks put onto a translation that was made without them.

The words of a pair are translated alone, too, and looked for in the sentence's translation; where they aren't found,
the pair keeps its share of the sentence. Pairs that lay inside each other do so again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ayllu.apps.translate.marks import Parts, Tag, joined
from ayllu.apps.translate.sentences import HAN

_EDGES = " \t\n.,;:!?\"'()。，、；：！？“”‘’（）《》"


@dataclass(frozen=True)
class Atom:
    """A piece of the source and its translation; a mark that stands for itself is an atom without text."""

    source: str
    target: str
    hole: Tag | None = None


@dataclass
class Pair:
    """A pair of marks over [start, end) of the atoms' source, holes counting one."""

    opens: Tag
    start: int
    closes: Tag | None = None
    end: int = 0
    inner: list["Pair"] = field(default_factory=list)


def flattened(parts: Parts) -> tuple[list[str | Tag], list[Pair]]:
    """Texts and holes alone, and the pairs over them, by the place of their characters."""
    flat: list[str | Tag] = []
    roots: list[Pair] = []
    stack: list[Pair] = []
    place = 0
    for part in parts:
        if isinstance(part, str) or part.kind == "hole":
            flat.append(part)
            place += len(part) if isinstance(part, str) else 1
        elif part.kind == "open":
            pair = Pair(part, place)
            (stack[-1].inner if stack else roots).append(pair)
            stack.append(pair)
        else:
            pair = stack.pop()
            pair.closes, pair.end = part, place
    return list(joined(flat)), roots


def inner_texts(text: str, pairs: Sequence[Pair], start: int = 0) -> Iterator[str]:
    """The words of each pair that lies in text[start:], as they are to be translated alone."""
    for pair in pairs:
        found = text[max(0, pair.start - start):max(0, pair.end - start)].strip(_EDGES)
        if found and found != text.strip(_EDGES):
            yield found
        yield from inner_texts(text, pair.inner, start)


Alone = Callable[[str], str | None] | None


def placed(atoms: Sequence[Atom], pairs: Sequence[Pair], alone: Alone) -> Parts:
    """The translation with the pairs in it. `alone` gives the translation of a pair's own words, where there is one;
    None: every pair gets its share, which never takes a mark out of a pair or into one."""
    target: list[str | Tag] = []
    bounds: list[tuple[int, int, int, int]] = []                             # of each atom: source and target
    s = t = 0
    for atom in atoms:
        width_s, width_t = (1, 1) if atom.hole else (len(atom.source), len(atom.target))
        bounds.append((s, s + width_s, t, t + width_t))
        target += [atom.hole] if atom.hole else list(atom.target)
        s, t = s + width_s, t + width_t
    source = "".join("\0" if atom.hole else atom.source for atom in atoms)
    text = "".join(c if isinstance(c, str) else "\0" for c in target)
    inserts: list[tuple[int, int, Tag]] = []
    _put(pairs, (0, len(text)), source, text, bounds, alone, inserts, [0])
    inserts.sort(key=lambda one: one[:2])
    out: list[str | Tag] = []
    place = 0
    for at, _, tag in inserts:
        out += [*target[place:at], tag]
        place = at
    return joined([*out, *target[place:]])


Bounds = list[tuple[int, int, int, int]]


def _put(pairs: Sequence[Pair], room: tuple[int, int], source: str, text: str, bounds: Bounds,
         alone: Alone, inserts: list[tuple[int, int, Tag]], order: list[int]) -> None:
    """Places for pairs side by side within a stretch of the translation: none overlaps another."""
    taken: list[tuple[int, int, Pair]] = []
    for pair in pairs:
        place = _found(pair, room, source, text, bounds, alone, [one[:2] for one in taken])
        taken.append((*place, pair))
    for start, end, pair in sorted(taken, key=lambda one: (one[0], one[1], one[2].start)):
        assert pair.closes is not None
        order[0] += 1
        inserts.append((start, order[0], pair.opens))
        _put(pair.inner, (start, end), source, text, bounds, alone, inserts, order)
        order[0] += 1
        inserts.append((end, order[0], pair.closes))


def _found(pair: Pair, room: tuple[int, int], source: str, text: str, bounds: Bounds,
           alone: Alone, taken: list[tuple[int, int]]) -> tuple[int, int]:
    guess = _share(pair, source, text, bounds)
    said = source[pair.start:pair.end].strip(_EDGES)
    for words in filter(None, (alone(said) if said else None, said) if alone else ()):
        words = words.strip(_EDGES)
        places = [m.start() for m in re.finditer(re.escape(words), text[:room[1]], re.IGNORECASE)] if words else []
        fitting = [(p, p + len(words)) for p in places if _is_free(p, p + len(words), room, taken)]
        if fitting:
            return min(fitting, key=lambda span: abs(span[0] - guess[0]))
    start, end = max(guess[0], room[0]), min(guess[1], room[1])
    for low, high in sorted(taken):                                          # what is left of its share
        if start < high and low < end:
            start, end = (start, low) if low > start else (high, max(high, end))
    start = min(max(start, room[0]), room[1])
    end = min(max(start, end), room[1])
    for low, high in ((start, end + 1), (start - 1, end)) if start == end else ():     # a link wants a word to stand on
        if _is_free(low, high, room, taken) and "\0" not in text[low:high]:
            return low, high
    return start, end


def _is_free(start: int, end: int, room: tuple[int, int], taken: list[tuple[int, int]]) -> bool:
    return room[0] <= start and end <= room[1] and all(end <= low or high <= start for low, high in taken)


def _share(pair: Pair, source: str, text: str, bounds: Bounds) -> tuple[int, int]:
    start = _mapped(pair.start, bounds, text, is_start=True)
    return start, max(start, _mapped(pair.end, bounds, text, is_start=False))


def _mapped(place: int, bounds: Bounds, text: str, is_start: bool) -> int:
    """The same share of the atom that the place lies in, moved to the edge of a word."""
    for low, high, t_low, t_high in bounds:
        if low <= place < high or (place == high and not is_start):
            if place in (low, high):
                return t_low if place == low else t_high
            at = t_low + round((place - low) / (high - low) * (t_high - t_low))
            while t_low < at < t_high and not (_is_cut(text[at - 1]) or _is_cut(text[at])):
                at += -1 if is_start else 1
            return at
    return len(text)


def _is_cut(character: str) -> bool:
    return not character.isalnum() or HAN.match(character) is not None
