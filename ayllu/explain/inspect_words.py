"""The words of a batch that is looked at, in English and Chinese: inspect.toml."""

from pathlib import Path

from ayllu.data.masks import NOTES
from ayllu.explain.shell import Words

BATCH = Words(Path(__file__).with_name("inspect.toml"))
WORDS = BATCH.words
NOTE_WORDS = {key: (NOTES[key], chinese) for key, chinese in BATCH.tables["notes"].items()}
