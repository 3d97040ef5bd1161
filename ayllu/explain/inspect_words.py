"""The words of a batch that is looked at, in English and Chinese: inspect.toml."""

from pathlib import Path

from ayllu.data.masks import NOTES
from ayllu.explain.shell import read_words

BATCH = Path(__file__).with_name("inspect.toml")
WORDS = read_words(BATCH)["words"]
NOTE_WORDS = {key: (NOTES[key], chinese) for key, chinese in read_words(BATCH)["notes"].items()}
