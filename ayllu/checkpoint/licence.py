"""The licence record of a checkpoint: what its weights are under, what that asks, and what they were made from.

It is found once (README, LICENSE, metadata), written as ayllu_licence.json or into GGUF metadata, and travels through
every later step. Licence texts travel beside it as they are.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ayllu.checkpoint.licence_terms import TERMS, TITLES
from ayllu.config import Settings
from ayllu.errors import CheckpointError
from ayllu.files import write_json
from ayllu.folder import inside, read_json

FILE = "ayllu_licence.json"
GGUF_KEY = "ayllu.licence"
_TEXT_NAME = re.compile(r"(licen[cs]e|use_policy|acceptable_use|notice|copying)([._-].*)?", re.IGNORECASE)
_MAX_TEXT = 2**20                                        # bytes; Meta's longest licence has 15 KB


class Licence(Settings):
    """One licence record. `id` is the hub's (llama2, apache-2.0); `notice` must stand in a file called Notice."""

    id: str
    name: str = ""
    url: str = ""
    notice: str = ""
    duties_en: tuple[str, ...] = ()
    duties_zh: tuple[str, ...] = ()
    found_in: str = ""                                   # the file that said so
    derived_from: tuple[str, ...] = ()                   # models whose weights went into this one

    def plain_words(self, lang: str = "en") -> str:
        """What the licence asks, as lines for the terminal, in English or Chinese."""
        duties = self.duties_zh if lang == "zh" else self.duties_en
        if lang == "zh":
            head = f"许可证：{self.name or self.id}" + (f"（{self.url}）" if self.url else "")
            tail = "以上是概要，不是法律意见；以许可证原文为准。"
            unknown = "Ayllu 不了解此许可证的内容：使用前请阅读原文。"
        else:
            head = f"Licence: {self.name or self.id}" + (f" ({self.url})" if self.url else "")
            tail = "This is a summary and no legal advice; the licence text counts."
            unknown = "Ayllu does not know what it asks: read its text before use."
        return "\n".join([head, *(f"  - {line}" for line in duties or (unknown,)), tail])

    def derived(self, parent: str) -> "Licence":
        """The record of a model made from `parent` (fine-tuned, merged, quantised): same duties, one more ancestor."""
        known = self.derived_from
        return self if parent in known else self.model_copy(update={"derived_from": (*known, parent)})


def licence_by_id(id: str, *, name: str = "", url: str = "", found_in: str = "") -> Licence:
    """The record for a licence id of the hub; unknown ids keep their name and say so."""
    terms = {**TERMS.get(id.lower(), {})}
    terms["name"] = terms.get("name") or name
    terms["url"] = terms.get("url") or url
    return Licence(id=id.lower(), found_in=found_in, **terms)


def licence_of(folder: Path) -> tuple[Licence | None, dict[str, str]]:
    """(record, texts by file name) of a folder: our own record, else the README's header, else a LICENSE file."""
    texts = _texts(folder)
    own = inside(folder, FILE)
    if own.is_file():
        return _parse(read_json(own), own), texts
    return _from_readme(folder) or _from_texts(texts), texts


def own_licence(folder: Path) -> tuple[Licence | None, dict[str, str]]:
    """As `licence_of`, but only where Ayllu wrote a record: a LICENSE beside a lone file may belong to anything."""
    return licence_of(folder) if inside(folder, FILE).is_file() else (None, {})


def write_licence(folder: Path, licence: Licence | None, texts: dict[str, str]) -> None:
    """Write the record, the texts as they were, and the Notice that the licence asks for if no text file has it."""
    for name, text in texts.items():
        inside(folder, name).write_text(text, encoding="utf-8")
    if licence is None:
        return
    write_json(folder / FILE, licence.model_dump(mode="json"))
    if licence.notice and not any(name.lower().startswith("notice") for name in texts):
        (folder / "Notice").write_text(licence.notice + "\n", encoding="utf-8")


def licence_to_gguf(licence: Licence | None) -> dict[str, Any]:
    """The metadata keys of a GGUF file."""
    if licence is None:
        return {}
    standard = {"general.license": licence.id, "general.license.name": licence.name,
                "general.license.link": licence.url}
    return {key: value for key, value in standard.items() if value} | {GGUF_KEY: licence.model_dump_json()}


def licence_from_gguf(metadata: dict[str, Any], where: Path) -> Licence | None:
    """Our own record, else the one for `general.license`."""
    if GGUF_KEY in metadata:
        try:
            return Licence.model_validate_json(metadata[GGUF_KEY])
        except ValidationError as error:
            raise CheckpointError(f"{where}: the key {GGUF_KEY} is no licence record: {error}") from error
    id = metadata.get("general.license")
    if not isinstance(id, str) or not id:
        return None
    return licence_by_id(id, name=str(metadata.get("general.license.name", "")),
                         url=str(metadata.get("general.license.link", "")), found_in=where.name)


def _texts(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        stem = path.name if path.suffix not in (".md", ".txt", ".rst") else path.stem
        if not _TEXT_NAME.fullmatch(stem) or path.suffix in (".json", ".pdf"):
            continue
        if inside(folder, path.name).is_file() and path.stat().st_size <= _MAX_TEXT:
            found[path.name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _parse(table: dict[str, Any], where: Path) -> Licence:
    try:
        return Licence.model_validate(table)
    except ValidationError as error:
        raise CheckpointError(f"{where} is no licence record that Ayllu wrote: {error.errors()[0]['msg']}; remove it "
                              "to have the licence read from README.md or LICENSE again") from error


def _from_readme(folder: Path) -> Licence | None:
    """The `license:` lines in the header that the hub's model cards begin with."""
    path = inside(folder, "README.md")
    if not path.is_file() or path.stat().st_size > _MAX_TEXT:
        return None
    header = re.match(r"---\s*\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    lines = re.findall(r"^(license\w*|base_model):[ \t]*([^\s#].*?)[ \t]*$", header[1] if header else "", re.MULTILINE)
    values = {key: value.strip("'\"") for key, value in lines}
    id = values.get("license")
    if not id:
        return None
    if id == "other" and values.get("license_name"):
        id = values["license_name"]
    found = licence_by_id(id, name=values.get("license_name", ""), url=values.get("license_link", ""),
                          found_in=path.name)
    return found.derived(values["base_model"]) if values.get("base_model") else found


def _from_texts(texts: dict[str, str]) -> Licence | None:
    for name, text in texts.items():
        top = " ".join(text[:400].upper().split())
        for title, id in TITLES:
            if name.lower().startswith("licen") and title in top:
                return licence_by_id(id, found_in=name)
    first = next((name for name in texts if name.lower().startswith("licen")), None)
    return Licence(id="other", found_in=first) if first else None
