"""What the documentation names exists: commands with their options, files, tests, recipe keys with their values; and
what exists is named: each command, each extra, each page within two hops of the README."""

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from ayllu.cli.main import build
from ayllu.cli.table import COMMANDS, Family
from ayllu.config import Settings
from ayllu.train.grpo_config import GrpoConfig
from ayllu.train.heads_config import HeadRecipe
from ayllu.train.prefer_config import PreferConfig
from ayllu.train.pretrain import PretrainConfig
from ayllu.train.sft_config import SftConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"),
                *(ROOT / "ayllu" / "weights").rglob("*.md")])
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
SOURCES = sorted([*(ROOT / "ayllu").rglob("*.py"), *(ROOT / "examples").glob("*.py")])
TRAINING = ("pretrain", "sft", "prefer", "grpo")
RECIPES_OF = (PretrainConfig, SftConfig, PreferConfig, GrpoConfig)
FOLDERS = ("ayllu", "benchmarks", "docs", "examples", "recipes", "tests")
PATH = re.compile(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)(?:::(\w+))?")
OLDER_KEYS = {"loop.autocast"}                            # still read, as CHANGELOG.md says
EVERYWHERE = {"--help", "-h", "--debug", "--version"}


def named(page: Path) -> Path:
    return page.relative_to(ROOT)


def code_of(text: str) -> list[str]:
    """What stands in backticks, and each line of the fenced and indented blocks."""
    fenced = re.findall(r"^```(?:sh|console|toml|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in fenced for line in block.splitlines()]
    return [*re.findall(r"`([^`]+)`", plain), *re.findall(r"^    (\S.*)$", plain, re.MULTILINE), *lines]


def command_lines(text: str, program: str) -> list[list[str]]:
    """The words after `program`, for each place where code calls it; pipes and comments end a call."""
    found = []
    for code in code_of(text):
        for call in re.split(r"\s(?:\||&&|;)\s", " ".join(code.split())):
            place = re.search(rf"(?:^|\s){program} (.*)$", call)
            if place:
                try:
                    found.append(shlex.split(place[1], comments=True))
                except ValueError:                       # an apostrophe in an output, not a command
                    continue
    return found


@cache
def options(command: str, second: str | None) -> set[str]:
    row = COMMANDS[command]
    if isinstance(row, Family):
        if second is None:
            return set()
        row = row.rows[second]
    return {name for parameter in build(command, row).params for name in (*parameter.opts, *parameter.secondary_opts)}


def command_faults(text: str) -> list[str]:
    """Calls of ayllu with a command or an option that there isn't; a word in capitals stands for anything."""
    faults = []
    for words in command_lines(text, "ayllu"):
        if not words or not re.fullmatch(r"[a-z]+", words[0]) or words[0] == "import":
            continue
        family = COMMANDS.get(words[0])
        second = words[1] if isinstance(family, Family) and len(words) > 1 and words[1].isalpha() else None
        if family is None or (second is not None and isinstance(family, Family) and second not in family.rows):
            faults.append(f"no command: ayllu {' '.join(words[:2])}")
            continue
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        unknown = given - EVERYWHERE - options(words[0], second)
        faults += [f"ayllu {words[0]} has no {option}" for option in sorted(unknown)]
    return faults


def path_faults(text: str) -> list[str]:
    """Files, and tests in them (tests/x.py::test_y), that are named in code and don't exist."""
    faults = []
    for path, test in {found for code in code_of(text) for found in PATH.findall(code)}:
        file = ROOT / path
        if not file.exists() and not (ROOT / "ayllu" / path).exists() and not file.with_suffix(".py").exists():
            faults.append(f"no file {path}")
        elif test and test not in {n.name for n in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                                   if isinstance(n, ast.FunctionDef)}:
            faults.append(f"{path} has no {test}")
    return faults


def script_faults(text: str) -> list[str]:
    """Options of our own scripts, `python benchmarks/x.py --quick`, that the script doesn't have."""
    faults = []
    for words in command_lines(text, "python"):
        script = ROOT / (words[0] if words else "")
        if script.suffix == ".py" and script.is_file():
            source = script.read_text(encoding="utf-8")
            names = re.findall(r"^from (\w+) import", source, re.MULTILINE)
            beside = (script.with_name(f"{name}.py") for name in names)
            source += "".join(each.read_text(encoding="utf-8") for each in beside if each.is_file())
            faults += [f"{words[0]} has no {word}" for word in words[1:]
                       if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source]
    return faults


def settings_in(annotation: Any) -> list[type[Settings]]:
    """The settings that a field may hold, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in settings_in(part)]


def key_fault(key: str, value: str | None) -> str | None:
    """Why `key=value` is no line of a recipe, or None; where a key leads into a list, the rest is not looked at."""
    kinds: list[type[Settings]] = [*RECIPES_OF, HeadRecipe]
    annotations: list[Any] = []
    for part in key.split("."):
        annotations = [kind.model_fields[part].rebuild_annotation() for kind in kinds if part in kind.model_fields]
        if not annotations:
            return f"no key {key}"
        kinds = [kind for annotation in annotations for kind in settings_in(annotation)]
    if value is None or value.isupper():
        return None
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for annotation in annotations:
        try:
            TypeAdapter(annotation).validate_python(parsed)
        except ValidationError:
            continue
        return None
    return f"{key} can't be {value}"


def key_faults(text: str) -> list[str]:
    """Recipe keys in backticks (`loop.steps`, `size=15m`) and behind `ayllu pretrain RECIPE`."""
    alone = [code for code in code_of(text) if re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)*(?:=\S+)?", code)
             and any(code.split(".")[0].partition("=")[0] in kind.model_fields for kind in RECIPES_OF)
             and ("." in code or "=" in code)]
    behind = [word for words in command_lines(text, "ayllu") if words and words[0] in TRAINING
              for word in words[1:] if re.match(r"[a-z_.]+=", word)]
    faults = []
    for code in [*alone, *behind]:
        if Path(code).suffix in {".py", ".md", ".toml", ".bin", ".json", ".jsonl", ".png"}:
            continue
        key, equals, value = code.partition("=")
        faults.append(key_fault(key, value if equals else None))
    return [fault for fault in faults if fault and fault.removeprefix("no key ") not in OLDER_KEYS]


CHECKS = (command_faults, path_faults, script_faults, key_faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(named(page)))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_a_page_names_exists(check, page):
    assert check(page.read_text(encoding="utf-8")) == []


def test_what_comments_name_exists():
    """Docstrings and comments of package and recipes: commands in backticks, and paths anywhere."""
    faults = []
    for file in SOURCES + RECIPES:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".py":
            comments = re.findall(r"#\s.*$", text, re.MULTILINE)
            text = "\n".join([*comments, *(ast.get_docstring(n) or "" for n in ast.walk(ast.parse(text))
                                           if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))])
        paths = [f"no file {path}" for path, _ in PATH.findall(text) if Path(path).suffix in {".py", ".md", ".toml"}
                 and not (ROOT / path).exists() and not path.startswith("docs/pictures")]
        faults += [f"{named(file)}: {fault}" for fault in [*command_faults(text), *paths]]
    assert faults == []


@pytest.mark.parametrize("language", ["", ".zh-CN"])
def test_each_command_and_extra_is_named(language):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES
                      if page.name.endswith(".zh-CN.md") == bool(language))
    rows = [f"{name} {second}" for name, row in COMMANDS.items() if isinstance(row, Family) for second in row.rows]
    missing = [name for name in [*COMMANDS, *rows] if not re.search(rf"ayllu {name}\b", pages)]
    assert missing == []
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    install = (ROOT / "docs" / f"install{language}.md").read_text(encoding="utf-8")
    assert [x for x in table["project"]["optional-dependencies"] if f"| `{x}` |" not in install] == []


@pytest.mark.parametrize("start", ["README.md", "README.zh-CN.md"])
def test_each_page_is_two_hops_from_the_readme(start):
    """Following links to pages of one's own language, and to English ones that have no twin."""
    reached, edge = {ROOT / start}, {ROOT / start}
    for _ in range(2):
        targets = {(page.parent / link.partition("#")[0]).resolve() for page in edge
                   for link in re.findall(r"\]\(([^)\s]+\.md(?:#[^)]*)?)\)", page.read_text(encoding="utf-8"))
                   if "://" not in link}
        edge = {t for t in targets if t.exists()} - reached
        reached |= edge
    is_chinese = start != "README.md"
    mine = {p for p in PAGES if p.name.endswith(".zh-CN.md") == is_chinese}
    assert sorted(str(named(p)) for p in mine - reached) == []


def test_each_check_can_fail():
    page = ("`ayllu fly`, `ayllu generate --wings`, `ayllu data destroy x`, `tests/nowhere.py`, "
            "`tests/docs/test_names.py::test_nothing`, `python benchmarks/lines.py --no-such`, `loop.stepz`, "
            "`loop.precision=float7`")
    assert command_faults(page) == ["no command: ayllu fly", "ayllu generate has no --wings",
                                    "no command: ayllu data destroy"]
    assert sorted(path_faults(page)) == ["no file tests/nowhere.py", "tests/docs/test_names.py has no test_nothing"]
    assert script_faults(page) == ["benchmarks/lines.py has no --no-such"]
    assert key_faults(page) == ["no key loop.stepz", "loop.precision can't be float7"]
    good = "`ayllu data verify FOLDER --json`, `loop.micro_batch=auto`, `size=15m`, `tests/docs/test_names.py`"
    assert [fault for check in CHECKS for fault in check(good)] == []
