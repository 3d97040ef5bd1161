"""The drafts of `ayllu write`: those of the page, in the user's own folder."""

import re
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

from ayllu.cli.output import print_json, write_text
from ayllu.errors import ConfigError
from ayllu.files import data_folder
from ayllu.log import say
from ayllu.principal import LOCAL

if TYPE_CHECKING:
    from ayllu.apps.write.brief import Brief
    from ayllu.apps.write.drafts import Drafts

MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}                    # as git has them
COLOURS = {"same": ("", ""), "removed": ("\x1b[31;9m", "\x1b[0m"), "added": ("\x1b[32m", "\x1b[0m")}


def _opened() -> "closing[Drafts]":
    from ayllu.apps.write.drafts import Drafts
    return closing(Drafts(data_folder() / "drafts.sqlite"))


def list_drafts(*, as_json: bool) -> None:
    """A line for each, the newest first."""
    with _opened() as drafts:
        found = drafts.list(LOCAL, limit=-1)             # all
    for row in () if as_json else found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created_s"]))
        write_text(f"{row['title']}  ({row['id']}, {made}, versions: {row['versions']})\n")
    if as_json:
        print_json({"drafts": found})
    elif not found:
        say("no drafts yet: --draft NAME keeps a text as one")


def show_draft(name: str, between: str | None, *, as_json: bool) -> None:
    """The newest version, or what changed between two."""
    from ayllu.apps.write.drafts import diff

    with _opened() as drafts:
        found = drafts.get(LOCAL, drafts.id_of(LOCAL, name) or "")
    texts = {version["version"]: version["text"] for version in found["versions"]}
    if between is None:
        print_json(found) if as_json else write_text(texts[len(texts)])
        return
    numbers = re.fullmatch(r"(\d+):(\d+)", between)
    old, new = map(int, numbers.groups()) if numbers else (0, 0)
    if not {old, new} <= set(texts):
        raise ConfigError(f"--diff {between}: name two versions as OLD:NEW; {name} has 1 to {len(texts)}")
    changes = diff(texts[old], texts[new])
    if as_json:
        print_json({"draft": found["id"], "old": old, "new": new, "changes": changes})
        return
    marks = COLOURS if sys.stdout.isatty() else MARKS
    for kind, text in changes:
        sys.stdout.write(marks[kind][0])
        write_text(text)
        sys.stdout.write(marks[kind][1])


def newest(name: str) -> str:
    """The text of a draft's newest version."""
    with _opened() as drafts:
        return str(drafts.get(LOCAL, drafts.id_of(LOCAL, name) or "")["versions"][-1]["text"])


def keep(name: str, brief: "Brief", *texts: tuple[str, str]) -> None:
    """Texts, each with its note, as further versions of a draft; one of this name is made where there is none."""
    with _opened() as drafts:
        draft = drafts.id_of(LOCAL, name, or_none=True)
        for text, note in texts[draft is not None and len(texts) > 1:]:      # of a draft the text before is there
            if draft is None:
                draft, number = drafts.begin(LOCAL, name, brief, text, note), 1
            else:
                number = drafts.add(LOCAL, draft, text, note)
    say(f"kept as version {number} of the draft {name}")
