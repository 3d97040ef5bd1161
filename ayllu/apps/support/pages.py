"""A business's folder: pages as a collection, cut into sections, with the rules beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shutil import copytree, ignore_patterns

from ayllu.apps.collection import Collection
from ayllu.apps.documents.read import READERS
from ayllu.apps.support.match import Match, Matcher
from ayllu.apps.support.rules import Rules
from ayllu.apps.support.sections import sections_of
from ayllu.errors import DataError

RULES = "rules.toml"
QUESTIONS = "questions.tsv"                              # of the sample: no page, but what it is measured with
MOST_SECTIONS = 20_000


def sample() -> Path:
    """The folder of the sample shop."""
    return Path(str(files("ayllu.apps") / "shop"))


def copy_sample(folder: Path) -> None:
    """The sample shop as a beginning of one's own."""
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is there and isn't empty: name a new folder")
    copytree(sample(), folder, dirs_exist_ok=True, ignore=ignore_patterns("__pycache__"))


@dataclass
class Pages:
    """A collection of pages, and the sections that answers are made of."""

    collection: Collection
    matcher: Matcher
    left_out: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path, collection: Collection, rules: Rules) -> "Pages":
        """Bring the collection in step with the folder, and index its sections."""
        if not folder.is_dir():
            raise DataError(f"no folder of pages at {folder}: `ayllu support init FOLDER` makes one to begin with")
        names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))
                 if path.is_file() and path.suffix.lower() in READERS and path.name != QUESTIONS
                 and not any(part.startswith(".") for part in path.relative_to(folder).parts)}
        if gone := [d.source for d in collection.documents() if d.source not in names]:
            collection.remove(gone)
        summary = collection.add_named(names)
        sections = [section for d in collection.documents()
                    for section in sections_of(d.source, d.kind, d.title, collection.text(d.id))]
        if not sections:
            why = next((f" ({name}: {reason})" for name, reason in summary.left_out.items()), "")
            raise DataError(f"{folder} holds no page that can be read{why}: put Markdown, HTML, PDF or CSV files there")
        if len(sections) > MOST_SECTIONS:
            raise DataError(f"{folder} has {len(sections):,} sections, the most is {MOST_SECTIONS:,}: customer service "
                            "answers from a business's own pages; `ayllu ask` searches large collections")
        return cls(collection, Matcher(sections, [group.words for group in rules.synonyms]), summary.left_out)

    def best(self, question: str, language: str | None, n: int) -> list[Match]:
        """The sections that answer a question best."""
        return self.matcher.best(question, language, n)
