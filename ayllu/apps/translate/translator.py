"""Texts with marks, translated: nothing lost, and what could not be done is kept in the source and said.

    whole, with its marks  ->  again  ->  in sentences without marks, which are put back by place
        ->  around its numbers  ->  kept in the source

A small model that never learned marks begins with the third.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ayllu.apps.speaker import Speaker
from ayllu.apps.translate.asker import Ask, Asker, Origin, Said
from ayllu.apps.translate.holes import Glossary, masked
from ayllu.apps.translate.languages import Pair, is_other, spaced
from ayllu.apps.translate.marks import Parts, Tag, has_letters, joined, nesting, read, shown, words
from ayllu.apps.translate.memory import Entry, Memory
from ayllu.apps.translate.place import Atom, flattened, inner_texts, placed
from ayllu.apps.translate.place import Pair as Marks
from ayllu.apps.translate.quality import LOW_BACK, LOW_PROBABILITY, closeness
from ayllu.apps.translate.sentences import sentences, short_sentences

WINDOW = 48                                              # segments that are asked together, and then kept
MOST_WORDS = 40                                          # of a sentence that a small model is given
MOST_TOKENS = 400                                        # of a segment that is given whole
_SPACES = " \t\n\r\f"
SIGNS = dict(zip(".,!?;:", "。，！？；：", strict=True))
SIGNS_BACK = {chinese: latin for latin, chinese in SIGNS.items()}


@dataclass(frozen=True)
class Translation:
    """A segment's translation. `probability` is the mean over its tokens, the least of its sentences."""

    parts: Parts
    origin: Origin | Literal["kept", "other"]            # other: it was in no language to translate from
    probability: float | None = None
    back: float | None = None                            # how near its translation back is to the source, 0 to 1
    notes: tuple[str, ...] = ()
    alike: Entry | None = None

    @property
    def is_low(self) -> bool:
        """Whether a person should look at it."""
        return bool(self.notes) or (self.probability is not None and self.probability < LOW_PROBABILITY) or \
            (self.back is not None and self.back < LOW_BACK)


@dataclass
class Translator:
    """One pair of languages with one model. `check` translates back, too, and compares."""

    speaker: Speaker
    pair: Pair
    memory: Memory | None = None
    glossary: Glossary = field(default_factory=Glossary)
    check: bool = False
    prompt: str | None = None
    least: float = 0.0                                   # translations of a lower probability are not used

    def __post_init__(self) -> None:
        self.asker = Asker(self.speaker, self.pair, self.memory, self.prompt)

    def translate(self, many: Sequence[Parts], progress: Callable[[int, int], None] | None = None) -> list[Translation]:
        """All segments in their order. When it is broken off, what was asked is in the memory."""
        found: list[Translation] = []
        for start in range(0, len(many), WINDOW):
            before = words(many[start - 1]) if start else ""
            found += self._window(many[start:start + WINDOW], before)
            if progress:
                progress(len(found), len(many))
        return found

    def text(self, text: str) -> Translation:
        """One plain text."""
        return self.translate([(text,)])[0]

    def _window(self, many: Sequence[Parts], before: str) -> list[Translation]:
        found: dict[int, Translation] = {}
        ready: dict[int, Parts] = {}
        for i, parts in enumerate(many):
            hidden = masked(parts, self.glossary)
            if not any(isinstance(p, str) and has_letters(p) for p in hidden):
                found[i] = Translation(hidden, "other")
            elif is_other(words(parts), self.pair):
                found[i] = Translation(parts, "other")
            else:
                ready[i] = hidden
        if not self.speaker.is_small:
            contexts = {i: (words(many[i - 1]) if i else before)[-300:] for i in ready}
            found.update(self._whole(ready, contexts))
        found.update(self._plain({i: parts for i, parts in ready.items() if i not in found}))
        result = [found[i] for i in range(len(many))]
        result = self._checked(many, result) if self.check else result
        return [self._kept(parts, one) for parts, one in zip(many, result, strict=True)]

    def _kept(self, parts: Parts, one: Translation) -> Translation:
        if one.probability is None or one.probability >= self.least or one.origin == "person":
            return one
        return replace(one, parts=parts, origin="kept", notes=(*one.notes, "too unsure"))

    def _whole(self, ready: dict[int, Parts], contexts: dict[int, str]) -> dict[int, Translation]:
        """Segments asked with their marks, long ones in groups of sentences; those that fail are left out."""
        cut = {i: chunks(parts, self.speaker.count) for i, parts in ready.items()}
        asks = [Ask(shown(chunk), chunk, words(its[k - 1])[-300:] if k else contexts[i])
                for i, its in cut.items() for k, chunk in enumerate(its)]
        said = iter(self.asker.ask(asks))
        found = {}
        for i, its in cut.items():
            answers = [next(said) for _ in its]
            pieces = [read(one.text, chunk) for one, chunk in zip(answers, its, strict=True) if one.text is not None]
            if len(pieces) < len(its) or None in pieces:
                continue
            parts: Parts = ()
            for piece in filter(None, pieces):
                parts = joined([*parts, spaced(words(parts), words(piece), self.pair.target, True), *piece])
            probability = min((one.probability for one in answers if one.probability is not None), default=None)
            found[i] = Translation(parts, answers[0].origin if len(answers) == 1 else "model", probability,
                                   alike=answers[0].alike)
        return found

    def _plain(self, ready: dict[int, Parts]) -> dict[int, Translation]:
        """Segments asked in sentences without marks."""
        flat = {i: flattened(parts) for i, parts in ready.items()}
        cut = {i: list(_atoms(texts)) for i, (texts, _) in flat.items()}
        asked = {text for atoms in cut.values() for text in atoms if isinstance(text, str)}
        asked |= {inner for i, (texts, pairs) in flat.items()
                  for inner in inner_texts("".join("\0" if isinstance(t, Tag) else t for t in texts), pairs)
                  if "\0" not in inner}
        said = self._said(asked)
        again = {text: list(joined(masked((text,), Glossary(), with_numbers=True)))
                 for text, one in said.items() if one.fault == "numbers lost"}
        said |= self._said({piece for pieces in again.values() for piece in pieces if isinstance(piece, str)})
        return {i: self._assembled(ready[i], cut[i], flat[i][1], said, again) for i in ready}

    def _said(self, texts: set[str]) -> dict[str, Said]:
        """By the text with its blanks, what was said of it without them."""
        bare = sorted({text.strip(_SPACES) for text in texts if has_letters(text)})
        said = dict(zip(bare, self.asker.ask([Ask(text) for text in bare]), strict=True))
        return {text: said[text.strip(_SPACES)] for text in texts if has_letters(text)}

    def _assembled(self, parts: Parts, cut: list[str | Tag], pairs: list[Marks], said: dict[str, Said],
                   again: dict[str, list[str | Tag]]) -> Translation:
        used: list[Said] = []
        notes: list[str] = []
        atoms: list[Atom] = []
        for piece in cut:
            if isinstance(piece, Tag):
                atoms.append(Atom("", "", piece))
            elif piece in again:
                notes.append("in pieces around its numbers")
                inner = [self._target(p, said, used, notes) if isinstance(p, str) else p.hides for p in again[piece]]
                blanks = [("", "") if isinstance(p, Tag) else _blanks(p) for p in again[piece]]
                atoms.append(Atom(piece, self._run(inner, blanks)))
            else:
                atoms.append(Atom(piece, self._target(piece, said, used, notes)))
        if not used:
            return Translation(parts, "kept", notes=tuple(dict.fromkeys(notes)) or ("no answer passed",))
        atoms = self._with_spaces(atoms)
        result = placed(atoms, pairs, lambda text: one.text if (one := said.get(text)) is not None else None)
        if nesting(result) != nesting(parts):
            result = placed(atoms, pairs, None)
        probability = min((s.probability for s in used if s.probability is not None), default=None)
        origins = {s.origin for s in used}
        return Translation(result, "model" if len(origins) > 1 else origins.pop(), probability,
                           notes=tuple(dict.fromkeys(notes)), alike=next((s.alike for s in used if s.alike), None))

    def _target(self, piece: str, said: dict[str, Said], used: list[Said], notes: list[str]) -> str:
        one = said.get(piece)
        if one is None:                                  # no words: a sign alone is one of the other language
            bare = piece.strip(_SPACES)
            return SIGNS.get(bare, bare) if self.pair.target == "zh" else SIGNS_BACK.get(bare, bare)
        if one.text is None:
            notes.append(f"partly kept: {one.fault}")
            return piece.strip(_SPACES)
        used.append(one)
        return one.text

    def _with_spaces(self, atoms: list[Atom]) -> list[Atom]:
        """The blanks between pieces, as the target language wants them."""
        inner = [atom.hole.text or atom.hole.hides or "x" if atom.hole else atom.target for atom in atoms]
        blanks = [("", "") if atom.hole else _blanks(atom.source) for atom in atoms]
        result: list[Atom] = []
        for i, atom in enumerate(atoms):
            between = self._between(inner, blanks, i)
            if between and not atom.hole:
                atom = replace(atom, target=between + atom.target)
            elif between and result and not result[-1].hole:
                result[-1] = replace(result[-1], target=result[-1].target + between)
            elif between:
                result.append(Atom("", between))
            result.append(atom)
        return result

    def _run(self, inner: list[str], blanks: list[tuple[str, str]]) -> str:
        return "".join(self._between(inner, blanks, i) + text for i, text in enumerate(inner))

    def _between(self, inner: list[str], blanks: list[tuple[str, str]], i: int) -> str:
        had = i > 0 and bool(blanks[i - 1][1] or blanks[i][0])
        return spaced(inner[i - 1], inner[i], self.pair.target, had) if i else ""

    def _checked(self, many: Sequence[Parts], found: list[Translation]) -> list[Translation]:
        """How near the translation back comes to the source; the marks have no part in it."""
        texts = {i: words(one.parts).strip() for i, one in enumerate(found) if one.origin not in ("kept", "other")}
        back = Translator(self.speaker, self.pair.back, self.memory)
        said = dict(zip(texts, back.translate([(text,) for text in texts.values()]), strict=True))
        return [one if i not in said else replace(one, back=closeness(words(many[i]), words(said[i].parts))
                                                  if said[i].origin != "kept" else 0.0)
                for i, one in enumerate(found)]


def chunks(parts: Parts, count: Callable[[str], int]) -> list[Parts]:
    """A long segment in groups of sentences of MOST_TOKENS about, cut only where no pair of marks is open."""
    if count(shown(parts)) <= MOST_TOKENS:
        return [parts]
    pieces = [piece for part in parts for piece in (sentences(part) if isinstance(part, str) else [part])]
    found: list[list[str | Tag]] = [[]]
    depth = size = 0
    for piece in pieces:
        tokens = count(piece) if isinstance(piece, str) else 4
        if depth == 0 and found[-1] and size + tokens > MOST_TOKENS and isinstance(piece, str):
            found.append([])
            size = 0
        found[-1].append(piece)
        size += tokens
        depth += {"open": 1, "close": -1, "hole": 0}[piece.kind] if isinstance(piece, Tag) else 0
    return [joined(_stripped(chunk)) for chunk in found]


def _stripped(chunk: list[str | Tag]) -> list[str | Tag]:
    last = chunk[-1]
    return [*chunk[:-1], last.rstrip(_SPACES) if isinstance(last, str) else last]


def _atoms(texts: Sequence[str | Tag]) -> Iterator[str | Tag]:
    for part in texts:
        if isinstance(part, Tag):
            yield part
        else:
            yield from short_sentences(part, MOST_WORDS)


def _blanks(text: str) -> tuple[str, str]:
    bare = text.strip(_SPACES)
    at = text.find(bare) if bare else 0
    return text[:at], text[at + len(bare):]
