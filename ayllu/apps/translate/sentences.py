"""A text cut into sentences, and too long ones at their commas. Nothing is lost: the pieces joined are the text."""

import re

_SHORT = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|cf|No|Fig|Vol|approx|Inc|Ltd|Jr|Sr|pp?|[A-Z])\.$")
_END = re.compile(r"[。！？!?…]+[”’」』）)\"']*\s*|[.!?]+[”’\"')]*(?:\s+|$)|；\s*|\n+")
_PAUSE = re.compile(r"[,，、;；:：]\s*|\s+(?=(?:and|but|or|because|which|that|when|while|if)\s)|\s+[–—-]\s+")
HAN = re.compile(r"[぀-ヿ㐀-鿿豈-﫿가-힣]")


def sentences(text: str) -> list[str]:
    """Sentences with the blanks that follow them."""
    found, start = [], 0
    for match in _END.finditer(text):
        end = match.end()
        if match.group().startswith(".") and _SHORT.search(text[max(0, start, match.start() - 12):match.start() + 1]):
            continue
        if match.group()[0] == "." and end < len(text) and text[end].islower():
            continue
        found.append(text[start:end])
        start = end
    return [*found, *([text[start:]] if start < len(text) else [])]


def short_sentences(text: str, most: int) -> list[str]:
    """Sentences of `most` words or characters of Chinese; longer ones are cut at pauses, or where they must be."""
    return [piece for sentence in sentences(text) for piece in _shortened(sentence, most)]


def length(text: str) -> int:
    """Words; a character of Chinese, Japanese or Korean counts as one."""
    han = len(HAN.findall(text))
    return han + len(HAN.sub(" ", text).split())


def _shortened(sentence: str, most: int) -> list[str]:
    if length(sentence) <= most:
        return [sentence]
    cuts = [m.end() for m in _PAUSE.finditer(sentence)] or [m.end() for m in re.finditer(r"\s+", sentence)]
    pieces, start, last = [], 0, 0
    for cut in [*cuts, len(sentence)]:
        if last > start and length(sentence[start:cut]) > most:
            pieces.append(sentence[start:last])
            start = last
        last = cut
    rest = sentence[start:]
    while length(rest) > 2 * most and len(rest) > 2 * most:                  # no pause and no blank at all
        pieces.append(rest[:most])
        rest = rest[most:]
    return [*pieces, *([rest] if rest else [])]
