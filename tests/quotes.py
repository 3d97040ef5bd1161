"""Lines of code quoted by a page: a link to the file, the function's name, and the lines."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUOTE = re.compile(r"\[`(ayllu/[\w/]+\.py)`\]\(\.\./([^)]+)\)[,，] ?`([\w.]+)`[:：]\n\n```python\n(.*?)```", re.DOTALL)


def source_of(file: str, name: str) -> str:
    """The source of a function, or of a method given as Class.method."""
    text = (ROOT / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(n for n in ast.iter_child_nodes(node)
                    if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part)
    return ast.get_source_segment(text, node) or ""


def misplaced(page: str) -> list[str]:
    """Quotes whose link leads elsewhere, and quoted lines that don't stand in the function named beside them."""
    faults = []
    for file, link, name, code in QUOTE.findall(page):
        source = source_of(file, name)
        faults += [f"{link} is not {file}"] * (link != file)
        faults += [f"{file} {name}: {line}" for line in code.splitlines() if line not in source]
    return faults
