"""The architecture of docs/architecture.md, held by reading the source: floors, cycles, torch-free parts, sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ayllu"
FLOORS = [
    {"errors", "principal", "config", "device", "dist", "cluster", "log", "files", "folder", "database",
     "jobs"},
    {"text", "model", "privacy", "native"},
    {"checkpoint", "quant", "adapters", "media"},
    {"data", "engine"},
    {"evaluate", "explain"},
    {"train"},
    {"apps", "doctor"},
    {"server"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TORCH_FREE = ("text", "privacy", "database", "jobs", "principal", "engine.request", "engine.pages", "engine.plan",
              "engine.scheduler", "server.schema")
OVER_400_LINES: dict[str, str] = {}                      # module: why it may be longer than 400 lines (never over 600)
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def read_package(root: Path = ROOT) -> dict[str, str]:
    """Source by module name below the package: 'model.llama', 'text' for text/__init__.py, '' for the top one."""
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix("__init__").removesuffix("."):
            p.read_text(encoding="utf-8") for p in root.rglob("*.py")}


def imports(name: str, source: str, modules: set[str]) -> tuple[set[str], set[str]]:
    """The modules of the package, and the outside packages, that a source imports anywhere (functions included)."""
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [d if d.removeprefix("ayllu.") in modules else node.module or "" for d in deeper]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{name}: relative import; write the full name")
        else:
            continue
        for target in targets:
            package, _, rest = target.partition(".")
            (inside if package == "ayllu" else outside).add(rest if package == "ayllu" else package)
    return inside - {name}, outside


def floor_faults(sources: dict[str, str]) -> list[str]:
    faults = []
    for name, source in sources.items():
        room = name.split(".")[0]
        if name and room not in FLOOR:
            faults.append(f"{name}: {room} has no floor")
            continue
        for target in imports(name, source, set(sources))[0]:
            below = target.split(".")[0]
            if not target or not name or below == room:  # `from ayllu import __version__`; the lazy top; own package
                if not target and _public_names(source) - {"__version__"}:
                    faults.append(f"{name}: imports {_public_names(source)} from the public face")
                continue
            if below not in FLOOR or FLOOR[below] > FLOOR[room] or (FLOOR[below] == FLOOR[room] != 0):
                faults.append(f"{name} (floor {FLOOR[room]}) imports {target} (floor {FLOOR.get(below)})")
    return faults


def _public_names(source: str) -> set[str]:
    rooms = set(FLOOR)
    return {alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
            and node.module == "ayllu" for alias in node.names} - rooms


def cycle_faults(sources: dict[str, str]) -> list[str]:
    graph = {name: imports(name, source, set(sources))[0] & set(sources) for name, source in sources.items()}
    done: set[str] = set()
    faults: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            faults.append(" -> ".join((*path[path.index(name):], name)))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return faults


def torch_faults(sources: dict[str, str]) -> list[str]:
    faults = []
    for start in (n for n in sources if any(n == free or n.startswith(f"{free}.") for free in TORCH_FREE)):
        seen, todo = set(), [(start, start)]
        while todo:
            name, path = todo.pop()
            seen.add(name)
            inside, outside = imports(name, sources[name], set(sources))
            faults += [f"{path} -> torch"] if "torch" in outside else []
            todo += [(t, f"{path} -> {t}") for t in inside & set(sources) - seen]
    return faults


def size_and_name_faults(sources: dict[str, str]) -> list[str]:
    lines = {name: source.count("\n") for name, source in sources.items()}
    faults = [f"{n}: {k} lines, the most is 600" for n, k in lines.items() if k > 600]
    faults += [f"{n}: {k} lines, over 400 without a reason" for n, k in lines.items()
               if 400 < k <= 600 and n not in OVER_400_LINES]
    faults += [f"{n}: allowed over 400 lines but isn't" for n in OVER_400_LINES if lines.get(n, 0) <= 400]
    faults += [f"the package has {sum(lines.values())} lines, the most is 65,999"] * (sum(lines.values()) >= 66_000)
    return faults + [f"{n}: a vague name" for n in sources if VAGUE & set(n.split("."))]


def docstring_faults(sources: dict[str, str], rooms: set[str]) -> list[str]:
    faults = [f"{name or 'ayllu'}: no docstring" for name, source in sources.items()
              if not ast.get_docstring(ast.parse(source))]
    return faults + [f"{name}/__init__.py holds more than a docstring" for name in rooms
                     if len(ast.parse(sources[name]).body) > 1]


def drawing_faults(page: str, floors: list[set[str]], built: set[str]) -> list[str]:
    """Where docs/architecture.md draws other floors, or brackets what is built, or gives a built room no row."""
    drawn: list[set[str]] = []
    faults = []
    for line in reversed(re.findall(r"^\d  (.*)$", page, re.MULTILINE)):
        bracketed = {name for group in re.findall(r"\((.*?)\)", line) for name in group.split()}
        drawn.append(set(re.sub(r"[()]", " ", line).split()))
        faults += [f"{name}: drawn in brackets, but it is built" for name in sorted(bracketed & built)]
        faults += [f"{name}: drawn as built, but it isn't" for name in sorted(drawn[-1] - bracketed - built)]
    faults += [f"floor {i}: drawn {sorted(a)}, held {sorted(b)}" for i, (a, b) in
               enumerate(zip(drawn, floors, strict=True)) if a != b]
    return faults + [f"{name}: no row says what it holds" for name in sorted(set().union(*floors[1:]) & built)
                     if f"| `{name}` |" not in page]


SOURCES = read_package()
ROOMS = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.rglob("*/__init__.py")} - {""}


@pytest.mark.parametrize("check", [floor_faults, cycle_faults, torch_faults, size_and_name_faults])
def test_the_package_keeps_its_architecture(check):
    assert check(SOURCES) == []


def test_the_page_draws_these_floors():
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    built = {name.split(".")[0] for name in SOURCES if name}
    assert drawing_faults(page, [floor for floor in FLOORS if floor != {"__main__"}], built) == []


def test_docstrings():
    assert docstring_faults(SOURCES, ROOMS) == []


def test_torch_free_modules_load_without_torch():
    """What the source can't show: an outside package that itself brings torch."""
    free = [f"ayllu.{n}" for n in SOURCES if any(n == f or n.startswith(f"{f}.") for f in TORCH_FREE)]
    for modules in (["ayllu"], sorted(free), ["ayllu", "ayllu.cli.main", "ayllu.cli.table"]):
        code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; print('torch' in sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert result.stdout.strip() == "False", (modules, result.stderr[-500:])


BAD = [
    (floor_faults, {"text.a": "from ayllu.model import llama", "model.llama": ""}, "text.a"),
    (floor_faults, {"model.a": "def f():\n    import ayllu.cli.main", "cli.main": ""}, "cli.main"),
    (floor_faults, {"train.a": "from ayllu import LLM"}, "LLM"),
    (floor_faults, {"kitchen": ""}, "no floor"),
    (cycle_faults, {"model.a": "from ayllu.model import b", "model.b": "from ayllu.model.a import x"},
     "model.a -> model.b"),
    (torch_faults, {"text.a": "from ayllu import device", "device": "import torch"}, "text.a -> device -> torch"),
    (torch_faults, {"engine.pages": "def f():\n    from torch import nn"}, "engine.pages -> torch"),
    (size_and_name_faults, {"model.a": "x\n" * 601}, "601 lines"),
    (size_and_name_faults, {"model.a": "x\n" * 401}, "over 400"),
    (size_and_name_faults, {f"model.a{i}": "x\n" * 390 for i in range(170)}, "the package has"),
    (size_and_name_faults, {"model.utils": ""}, "vague"),
]


@pytest.mark.parametrize(("check", "sources", "says"), BAD)
def test_each_check_can_fail(check, sources, says):
    assert any(says in fault for fault in check(sources)), check(sources)


def test_the_check_of_the_drawing_can_fail():
    page = "2  cli\n1  (text)  model\n0  errors\n\n| `cli` |"
    assert drawing_faults(page, [{"errors"}, {"text", "model"}, {"cli", "api"}], {"errors", "text", "cli"}) == [
        "text: drawn in brackets, but it is built", "model: drawn as built, but it isn't",
        "floor 2: drawn ['cli'], held ['api', 'cli']", "text: no row says what it holds"]


def test_docstring_check_can_fail():
    assert docstring_faults({"model": '"""Doc."""\nx = 1', "model.a": "x = 1"}, {"model"}) == [
        "model.a: no docstring", "model/__init__.py holds more than a docstring"]
