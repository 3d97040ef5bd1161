"""Write docs/recipe.md: every key of a recipe with its default and the comment beside it in the code.

    python docs/recipe_keys.py
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from ayllu.config import Settings
from ayllu.train.pretrain import PretrainConfig

OUT = Path(__file__).with_name("recipe.md")
HEAD = """# The keys of a recipe

Every key that a recipe of `ayllu pretrain` may have, with its default and what the code says beside it. This page is
written by `python docs/recipe_keys.py`; `tests/docs/test_recipe_page.py` holds it to the code. What the settings are
for: [training.md](training.md), [masks.md](masks.md), [data.md](data.md); examples: [recipes](../recipes).
"""


def settings_in(annotation: Any) -> list[type[Settings]]:
    """The settings that a field may hold, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in settings_in(part)]


def sections() -> dict[type[Settings], list[str]]:
    """Each table of a recipe by its settings, and the places where it may stand; parents come first."""
    found: dict[type[Settings], list[str]] = {PretrainConfig: [""]}
    todo = [(PretrainConfig, "")]
    while todo:
        kind, place = todo.pop(0)
        for name, field in kind.model_fields.items():
            for inner in settings_in(field.annotation):
                path = f"{place}.{name}".lstrip(".")
                if path not in found.setdefault(inner, []):
                    found[inner].append(path)
                    if len(found[inner]) == 1:
                        todo.append((inner, path))
    return found


def said(kind: type[Settings], name: str) -> str:
    """The comment at the end of the field's line."""
    line = next((x for x in inspect.getsource(kind).splitlines() if re.match(rf"    {name}: ", x)), "")
    return line.partition("  # ")[2].strip() or line.partition(" # ")[2].strip()


def default(field: FieldInfo) -> str:
    """What counts where the key isn't there, and what else it may be."""
    value = field.get_default(call_default_factory=True)
    choices = [x for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal
               for x in get_args(part)]
    others = f" (of {', '.join(map(toml, choices))})" if len(choices) > 1 else ""
    if field.is_required():
        return "needed" + others
    if isinstance(value, Settings) or (isinstance(value, tuple) and value and isinstance(value[0], Settings)):
        return "its own defaults"
    return toml(value) + others


def toml(value: Any) -> str:
    """A value as a recipe writes it; for none, the key is left out."""
    if value is None:
        return "none"
    written = json.dumps(list(value) if isinstance(value, tuple | set | frozenset) else value, ensure_ascii=False)
    return f"`{written}`".replace("|", "\\|")


def title(kind: type[Settings], places: list[str]) -> str:
    """Where a table stands, and which of several kinds it is."""
    if kind is PretrainConfig:
        return "At the top"
    which = kind.model_fields.get("kind")
    only = get_args(which.annotation) if which is not None and get_origin(which.annotation) is Literal else ()
    shown = f'`{places[0]}`' if len(places) == 1 else f'`{places[0]}` and {len(places) - 1} more'
    return f'{shown}, kind "{only[0]}"' if len(only) == 1 else shown


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, places in sections().items():
        parts.append(f"\n## {title(kind, places)}\n\n{(inspect.getdoc(kind) or '').split(chr(10) * 2)[0]}\n")
        rows = [f"| `{name}` | {default(field)} | {said(kind, name).replace('|', chr(92) + '|')} |\n"
                for name, field in kind.model_fields.items()]
        if rows:
            parts.append("\n| Key | Default | What it is |\n| --- | --- | --- |\n" + "".join(rows))
    return "".join(parts)


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
    print(OUT)
