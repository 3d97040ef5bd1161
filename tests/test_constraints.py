"""constraints.txt pins everything that pyproject.toml asks for, within what it asks for."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {Requirement(line).name.lower().replace("_", "-"): line.partition("==")[2]
            for line in lines if line and not line.startswith("#")}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in [*project["dependencies"], *extras] if not line.startswith("ayllu")]


def test_every_requirement_is_pinned_within_its_range():
    known = pins()
    for requirement in requirements():
        version = known.get(requirement.name.lower().replace("_", "-"))
        assert version, f"{requirement.name} has no line in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"
