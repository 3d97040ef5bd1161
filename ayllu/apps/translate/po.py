"""PO files of gettext: an entry's translation is written into its msgstr; what a person translated stays.

An entry that is marked fuzzy is translated anew, and the mark goes; one whose translation is low gets it. Plural forms
follow the header of the target language (GNU gettext manual, "The Format of PO Files").
"""

import json
import re
from dataclasses import replace
from functools import partial

from ayllu.apps.translate.files import text_items, value_segments, write_json
from ayllu.apps.translate.splice import Segment
from ayllu.errors import DataError

_SLAVIC = "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"
PLURALS = {"zh": "nplurals=1; plural=0;", "ja": "nplurals=1; plural=0;", "ko": "nplurals=1; plural=0;",
           "vi": "nplurals=1; plural=0;", "th": "nplurals=1; plural=0;", "id": "nplurals=1; plural=0;",
           "fr": "nplurals=2; plural=(n > 1);", "pt": "nplurals=2; plural=(n > 1);",
           "ru": f"nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : {_SLAVIC}",
           "uk": f"nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : {_SLAVIC}",
           "pl": f"nplurals=3; plural=(n==1 ? 0 : {_SLAVIC}"}
GERMANIC = "nplurals=2; plural=(n != 1);"
_ENTRY = re.compile(r"(?:^[^\r\n]+(?:\r?\n|$))+", re.MULTILINE)
_FIELD = re.compile(r'^[ \t]*(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)[ \t]+'
                    r'((?:[ \t]*"(?:[^"\\\n]|\\.)*"[ \t]*(?:\r?\n|$))+)', re.MULTILINE)
_LINE = re.compile(r'[ \t]*(?:#.*|(?:(?:domain|msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)[ \t]+)?'
                   r'"(?:[^"\\]|\\.)*"[ \t]*)?\r?')
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_FUZZY = re.compile(r"^#,[^\n]*\bfuzzy\b[^\n]*(?:\n|$)", re.MULTILINE)


def prepare(source: str, to: str) -> str:
    """The file with the target's language and plural forms in its header, an empty string for each form, and no word
    left of fuzzy translations."""
    for number, line in enumerate(source.split("\n"), 1):
        if not _LINE.fullmatch(line):
            raise DataError(f"line {number} is no PO: found {line.strip()[:60]!r}, expected msgid, msgstr or a text in "
                            "double quotes, a comment after #, or a blank line; msgfmt --check shows all such lines")
    plural = PLURALS.get(to, GERMANIC)
    forms = int(plural[9])

    def entry(match: re.Match[str]) -> str:
        text = match.group()
        fields = {m.group(1): m for m in _FIELD.finditer(text)}
        if "msgid" not in fields:
            return text
        if _value(fields["msgid"]) == "":
            return _header(text, to, plural)
        if _FUZZY.search(text):
            text = _FIELD.sub(lambda m: f'{m.group(1)} ""\n' if m.group(1).startswith("msgstr") else m.group(), text)
            text = re.sub(r"^#\|[^\n]*\n", "", _without_fuzzy(text), flags=re.MULTILINE)
        found = [m for m in _FIELD.finditer(text) if m.group(1).startswith("msgstr[")]
        if found and all(_value(m) == "" for m in found) and len(found) != forms:
            lines = "".join(f'msgstr[{i}] ""\n' for i in range(forms))
            text = text[:found[0].start()] + lines + text[found[-1].end():]
        return text

    return _ENTRY.sub(entry, source)


def split_po(source: str) -> list[Segment]:
    """One segment for each empty msgstr, with the words of its msgid."""
    found: list[Segment] = []
    for match in _ENTRY.finditer(source):
        fields = {m.group(1): m for m in _FIELD.finditer(source, *match.span())}
        if "msgid" not in fields or _value(fields["msgid"]) == "":
            continue
        for name, field in fields.items():
            if name.startswith("msgstr") and _value(field) == "":
                one = "msgid" if name in ("msgstr", "msgstr[0]") and not (
                    name == "msgstr[0]" and "msgstr[1]" not in fields) else "msgid_plural"
                text = _value(fields[one if one in fields else "msgid"])
                start, end = field.start(2), field.start(2) + len(field.group(2).rstrip())
                items = text_items(text, start, end)
                found += [replace(s, is_filled=True, frame=('"' + s.frame[0], s.frame[1] + '"'), kind="po")
                          for s in value_segments(items, start, end, partial(write_json))]
    return found


def mark_fuzzy(source: str, starts: list[int]) -> str:
    """The file with a fuzzy mark at the entries that hold these places."""
    out, place = [], 0
    for match in _ENTRY.finditer(source):
        if any(match.start() <= start < match.end() for start in starts) and not _FUZZY.search(match.group()):
            field = _FIELD.search(source, *match.span())
            at = field.start() if field else match.start()
            out += [source[place:at], "#, fuzzy\n"]
            place = at
    return "".join([*out, source[place:]])


def _value(field: re.Match[str]) -> str:
    raw = "".join(_QUOTED.findall(field.group(2)))
    raw = re.sub(r"\\([^nrtbf\"\\/u])", r"\\\\\1", raw)                      # escapes of C that JSON has not
    return str(json.loads(f'"{raw}"', strict=False))


def _without_fuzzy(text: str) -> str:
    def line(match: re.Match[str]) -> str:
        flags = [f.strip() for f in match.group()[2:].split(",") if f.strip() != "fuzzy"]
        return f"#, {', '.join(flags)}\n" if flags else ""
    return _FUZZY.sub(line, text)


def _header(text: str, to: str, plural: str) -> str:
    text = _without_fuzzy(text)
    for name, value in (("Language", to), ("Plural-Forms", plural)):
        text = re.sub(rf'"{name}:(?:[^"\\]|\\.)*"', lambda m, n=name, v=value: f'"{n}: {v}\\n"', text)  # type: ignore[misc]
    return text
