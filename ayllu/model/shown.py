"""What takes the places of embeddings: features of images and sounds, which a Llama reads as if they were words.

B rows  T tokens  N tokens of all rows  L width of the model
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Passage = tuple[int, Tensor]                             # where in a prompt it begins; features (n, L)


class Shown(NamedTuple):
    """For a step's tokens: which are shown, and as what. Other tokens keep their embeddings to the bit."""

    is_shown: Tensor                                     # (B, T) or (N,)
    features: Tensor                                     # (B, T, L) or (N, L), of the model's dtype; 0 where not shown

    def over(self, x: Tensor) -> Tensor:                                      # embeddings, of any shape
        """The embeddings with the features in their places."""
        return torch.where(self.is_shown.reshape(*x.shape[:-1], 1), self.features.reshape(x.shape), x)

    def part(self, own: slice, n_more: int = 0) -> "Shown":
        """Of (N,): those tokens, and so many more at the end that aren't shown."""
        return Shown(F.pad(self.is_shown[own], (0, n_more)), F.pad(self.features[own], (0, 0, 0, n_more)))

    def split(self, size: int) -> "list[Shown]":
        """Of (B, T): as the ids are split along T."""
        return [Shown(*pair) for pair in zip(self.is_shown.split(size, dim=1), self.features.split(size, dim=1),
                                             strict=True)]


def shown_in(prompts: Sequence[Sequence[Passage]], padding: Sequence[int], n_tokens: int, dtype: torch.dtype,
             device: torch.device) -> Shown | None:
    """Of prompts that are filled on the left; None where nothing is shown."""
    first = next((features for passages in prompts for _, features in passages), None)
    if first is None:
        return None
    is_shown = torch.zeros(len(prompts), n_tokens, dtype=torch.bool, device=device)
    rows = torch.zeros(len(prompts), n_tokens, first.shape[1], dtype=dtype, device=device)
    for row, (passages, begin) in enumerate(zip(prompts, padding, strict=True)):
        for start, features in passages:
            part = slice(begin + start, begin + start + len(features))
            is_shown[row, part] = True
            rows[row, part] = features.to(device, dtype)
    return Shown(is_shown, rows)
