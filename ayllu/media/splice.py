"""Media in a text: each `<image>` or `<audio>` mark becomes as many placeholders as there are features, and the
features take the places of the placeholders' embeddings.

T tokens  L width of the Llama
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayllu.errors import RequestError


@dataclass(frozen=True)
class Place:
    """Ids `start` to `start + length` of a prompt stand for medium `number`."""

    number: int
    start: int
    length: int


def expanded(ids: Sequence[int], marks: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[Place]]:
    """Ids in which each mark is repeated for each feature, and where they lie. `marks` are the ids that stand for
    media, `lengths` the features of each medium in the order of the text."""
    out: list[int] = []
    places: list[Place] = []
    for id in ids:
        if id not in marks:
            out.append(id)
            continue
        if len(places) < len(lengths):
            places.append(Place(len(places), len(out), lengths[len(places)]))
            out += [id] * lengths[len(places) - 1]
        else:
            places.append(Place(len(places), len(out), 0))
    if len(places) != len(lengths):
        raise RequestError(f"the text has {len(places)} marks of images and sounds, and {len(lengths)} were given: "
                           "write one mark for each")
    return out, places


def spliced(embeddings: Tensor, places: Sequence[Place], features: Sequence[Tensor]) -> Tensor:
    """(T, L) with the features, each (n, L), in their places. A text without media comes back as it is."""
    for place in places:
        n = len(features[place.number])
        if n != place.length:
            raise RequestError(f"medium {place.number} has {n} features and {place.length} placeholders: they must be "
                               "as many; expand the text with the encoder's own counts")
    if not places:
        return embeddings
    parts, end = [], 0
    for place in places:
        parts += [embeddings[end:place.start], features[place.number].to(embeddings.dtype)]
        end = place.start + place.length
    return torch.cat([*parts, embeddings[end:]])
