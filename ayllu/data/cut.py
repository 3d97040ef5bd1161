"""A stream cut into lists of about equal weight, always at the same places."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def cut(items: Iterable[T], weigh: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Lists in order; each ends with the item that brings it to `most`, and only the last may weigh less."""
    part: list[T] = []
    weight = 0
    for item in items:
        part.append(item)
        weight += weigh(item)
        if weight >= most:
            yield part
            part, weight = [], 0
    if part:
        yield part
