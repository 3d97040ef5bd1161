"""The licence record of a checkpoint. (Filled in below; see field.md section 5.)"""

from ayllu.config import Settings


class Licence(Settings):
    """Which licence weights are under."""

    id: str
