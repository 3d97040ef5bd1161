"""Write docs/recipe.md and its Chinese twin: every key of a recipe with its default and the comment beside it.

    python docs/recipe_keys.py

The Chinese of each comment stands in recipe_keys.zh-CN.toml; what has none yet is named, and stays English.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from ayllu.config import Settings
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.sft_config import SftConfig

HERE = Path(__file__).parent
TOPS: dict[type[Settings], str] = {PretrainConfig: "At the top", SftConfig: "At the top, of `ayllu sft`",
                                   PreferConfig: "At the top, of `ayllu prefer`",
                                   GrpoConfig: "At the top, of `ayllu grpo`"}
HEAD = """# The keys of a recipe

[中文](recipe.zh-CN.md)

Every key that a recipe of `ayllu pretrain` may have, and then those that only `ayllu sft`, `ayllu prefer` and
`ayllu grpo` have, with its default and what the code says beside it. This page is written by
`python docs/recipe_keys.py`; `tests/docs/test_recipe_page.py` holds it to the code. What the settings are for:
[training.md](training.md), [masks.md](masks.md), [data.md](data.md), [fine-tuning.md](fine-tuning.md),
[preferences.md](preferences.md); examples: [recipes](../recipes).
"""
HEAD_ZH = """# 配方的全部设置项

[English](recipe.md)

`ayllu pretrain` 的配方可以有的每个键，然后是只有 `ayllu sft`、`ayllu prefer` 和 `ayllu grpo` 才有的键，连同默认值和
代码里写在它旁边的说明。本页由 `python docs/recipe_keys.py` 写出，`tests/docs/test_recipe_page.py` 保证它与
代码一致。这些设置用来做什么：
[training.zh-CN.md](training.zh-CN.md)、[masks.zh-CN.md](masks.zh-CN.md)、[data.zh-CN.md](data.zh-CN.md)、
[fine-tuning.zh-CN.md](fine-tuning.zh-CN.md)、[preferences.zh-CN.md](preferences.zh-CN.md)；例子：[recipes](../recipes)。
"""
WORDS_ZH = {"At the top": "最外层", "At the top, of `ayllu sft`": "最外层（`ayllu sft`）",
            "At the top, of `ayllu prefer`": "最外层（`ayllu prefer`）",
            "At the top, of `ayllu grpo`": "最外层（`ayllu grpo`）",
            "Key": "键", "Default": "默认", "What it is": "是什么", "needed": "必填",
            "none": "无", "its own defaults": "取其自身的默认值", " (of {})": "（可选 {}）",
            "{} and {} more": "{} 和另外 {} 处", ", kind ": "，kind ", ", ": "、"}



def settings_in(annotation: Any) -> list[type[Settings]]:
    """The settings that a field may hold, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in settings_in(part)]


def sections() -> dict[type[Settings], list[str]]:
    """Each table of a recipe by its settings, and the places where it may stand; parents come first."""
    found: dict[type[Settings], list[str]] = {}
    for root in TOPS:
        found[root] = [""]
        _walk(root, found)
    return found


def _walk(root: type[Settings], found: dict[type[Settings], list[str]]) -> None:
    todo = [(root, "")]
    while todo:
        kind, place = todo.pop(0)
        for name, field in kind.model_fields.items():
            for inner in settings_in(field.annotation):
                path = f"{place}.{name}".lstrip(".")
                if path not in found.setdefault(inner, []):
                    found[inner].append(path)
                    if len(found[inner]) == 1:
                        todo.append((inner, path))


def said(kind: type[Settings], name: str) -> str:
    """The comment at the end of the field's line."""
    lines = (x for each in kind.__mro__ if issubclass(each, Settings) for x in inspect.getsource(each).splitlines())
    line = next((x for x in lines if re.match(rf"    {name}: ", x)), "")
    return line.partition("  # ")[2].strip() or line.partition(" # ")[2].strip()


Say = Callable[[str], str]                               # an English text, in the language of the page


def default(field: FieldInfo, say: Say) -> str:
    """What counts where the key isn't there, and what else it may be."""
    value = field.get_default(call_default_factory=True)
    choices = [x for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal
               for x in get_args(part)]
    others = say(" (of {})").format(say(", ").join(map(toml, choices))) if len(choices) > 1 else ""
    if field.is_required():
        return say("needed") + others
    if isinstance(value, Settings) or (isinstance(value, tuple) and value and isinstance(value[0], Settings)):
        return say("its own defaults")
    return (say("none") if value is None else toml(value)) + others


def toml(value: Any) -> str:
    """A value as a recipe writes it."""
    written = json.dumps(list(value) if isinstance(value, tuple | set | frozenset) else value, ensure_ascii=False)
    return f"`{written}`".replace("|", "\\|")


def title(kind: type[Settings], places: list[str], say: Say) -> str:
    """Where a table stands, and which of several kinds it is."""
    if kind in TOPS:
        return say(TOPS[kind])
    which = kind.model_fields.get("kind")
    only = get_args(which.annotation) if which is not None and get_origin(which.annotation) is Literal else ()
    first = f"`{places[0]}`"
    shown = first if len(places) == 1 else say("{} and {} more").format(first, len(places) - 1)
    return f'{shown}{say(", kind ")}"{only[0]}"' if len(only) == 1 else shown


def page(head: str = HEAD, say: Say = str) -> str:
    """The whole page."""
    parts = [head]
    for kind, places in sections().items():
        about = (inspect.getdoc(kind) or "").split("\n\n")[0]
        parts.append(f"\n## {title(kind, places, say)}\n\n{say(about)}\n")
        rows = [f"| `{name}` | {default(field, say)} | {say(said(kind, name)).replace('|', chr(92) + '|')} |\n"
                for name, field in kind.model_fields.items()]
        if rows:
            head_row = " | ".join(map(say, ("Key", "Default", "What it is")))
            parts.append(f"\n| {head_row} |\n| --- | --- | --- |\n" + "".join(rows))
    return "".join(parts)


def chinese() -> Mapping[str, str]:
    """The Chinese of what the English page says."""
    return WORDS_ZH | tomllib.loads((HERE / "recipe_keys.zh-CN.toml").read_text(encoding="utf-8"))


def page_zh(missing: set[str]) -> str:
    """The twin; what has no Chinese is added to `missing`."""
    known = chinese()

    def say(text: str) -> str:
        if text not in known and re.search("[a-z]{2}", text):
            missing.add(text)
        return known.get(text, text)

    return page(HEAD_ZH, say)


if __name__ == "__main__":
    missing: set[str] = set()
    for name, text in (("recipe.md", page()), ("recipe.zh-CN.md", page_zh(missing))):
        (HERE / name).write_text(text, encoding="utf-8")
        print(HERE / name)
    for text in sorted(missing):
        print(f"no Chinese yet: {text}")
