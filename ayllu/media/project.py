"""From an encoder's features to the width of a Llama: fewer places, then a projection.

B images or sounds  N places  D encoder's width  K places that become one  L Llama's width
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.model.llama import RMSNorm

NORM_EPS = 1e-6                                          # Ultravox's


class ProjectorConfig(Settings):
    """`gather` makes one place of `every` neighbours: "stack" puts their features side by side (Ultravox), "pool"
    takes the mean. `kind`: a matrix, two with GELU (LLaVA-1.5), or SwiGLU. `norms` are Ultravox's: one before
    everything, and one between the matrices ("mid", its later models) or after them ("post")."""

    kind: Literal["linear", "mlp", "swiglu"] = "mlp"
    gather: Literal["none", "stack", "pool"] = "none"
    every: int = 1
    width: int                                           # of the encoder
    out: int                                             # of the Llama
    hidden: int | None = None                            # between the matrices; None: as wide as the Llama
    norms: Literal["none", "mid", "post"] = "none"


class Projector(nn.Module):
    """Features (B, N, D) -> embeddings (B, ceil(N / K), L)."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.width * (config.every if config.gather == "stack" else 1)
        hidden = config.hidden or config.out
        if config.kind == "linear":
            self.w1 = nn.Linear(inner, config.out)
        else:
            is_swiglu = config.kind == "swiglu"
            self.w1 = nn.Linear(inner, hidden, bias=not is_swiglu)
            self.w2 = nn.Linear(hidden, config.out, bias=not is_swiglu)
            if is_swiglu:
                self.w3 = nn.Linear(inner, hidden, bias=False)
        if config.norms != "none":
            self.first_norm = RMSNorm(inner, NORM_EPS)
            mid = hidden if config.norms == "mid" and config.kind != "linear" else config.out
            self.last_norm = RMSNorm(mid, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, N, D) -> (B, ceil(N / K), L)
        x, norms = gathered(x, self.config), self.config.norms
        x = x if norms == "none" else self.first_norm(x)
        match self.config.kind:
            case "linear":
                x = self.w1(x)
            case "mlp":
                x = F.gelu(self.w1(x))
            case "swiglu":
                x = F.silu(self.w1(x)) * self.w3(x)
        x = self.last_norm(x) if norms == "mid" else x
        x = x if self.config.kind == "linear" else self.w2(x)
        return self.last_norm(x) if norms == "post" else x

    @staticmethod
    def n_places_of(config: ProjectorConfig, n: int) -> int:
        """How many embeddings come of n features."""
        return n if config.gather == "none" else -(-n // config.every)


def gathered(x: Tensor, config: ProjectorConfig) -> Tensor:
    """K neighbours as one place; a last group that isn't full is filled with zeros to stack, and pooled as it is."""
    if config.gather == "none" or config.every == 1:
        return x
    if config.gather == "stack":
        x = F.pad(x, (0, 0, 0, -x.shape[1] % config.every))
        return x.unflatten(1, (-1, config.every)).flatten(2)                  # (B, N / K, K D)
    return F.avg_pool1d(x.mT, config.every, ceil_mode=True).mT                # a short group: the mean of what there is
