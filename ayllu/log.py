"""Messages for people, on stderr: stdout belongs to results."""

import logging
import sys

logger = logging.getLogger("ayllu")


def setup(verbose: bool = False) -> None:
    """Send Ayllu's messages to stderr as plain lines; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


def say(text: str) -> None:
    """Tell the user something that matters but is no result."""
    logger.info(text)


def warn(text: str) -> None:
    """Tell the user something that may surprise them."""
    logger.warning("warning: %s", text)


def only_warnings() -> None:
    """From now on `say` is silent: another process tells the same."""
    logger.setLevel(logging.WARNING)
