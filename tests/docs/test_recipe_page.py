"""docs/recipe.md and its twin are what docs/recipe_keys.py writes from the code; no key of a recipe is missing."""

from pathlib import Path

from scripts import load_script

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")


def test_the_page_is_written_from_the_code():
    written = load_script("docs/recipe_keys.py")
    for name, page in (("recipe.md", written.page()), ("recipe.zh-CN.md", written.page_zh(set()))):
        assert page == (ROOT / "docs" / name).read_text(encoding="utf-8"), (
            "a recipe's keys have changed: python docs/recipe_keys.py")


def test_tables_are_found_wherever_they_stand():
    places = {place for each in load_script("docs/recipe_keys.py").sections().values() for place in each}
    assert {"loop", "optim.schedule", "data.sources", "data.prepare.quality", "masks.parts", "adapt.rounds"} <= places
    for row in ("| `micro_batch` | `8` |", '| `kind` | `"adamw"` (of `"adamw"`, `"muon"`', "| `steps` | needed |"):
        assert row in PAGE
