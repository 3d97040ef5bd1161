"""A vision transformer (arXiv:2010.11929): trained from scratch, or with the weights of CLIP (arXiv:2103.00020) or
SigLIP (arXiv:2303.15343), which differ in a class token, a first norm and how one vector is made of the patches.

B images  S pixels a side  P pixels a patch's side  N patches  D width
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.errors import ConfigError
from ayllu.media.encoder import Attention, FeedForward, Layer, Shape


class VisionConfig(Settings):
    """`kind` "clip" has a class token and a norm before the first layer, "siglip" a query that pools."""

    kind: Literal["clip", "siglip"] = "siglip"
    shape: Shape
    image_size: int = 224
    patch_size: int = 16
    pools: bool = True                                   # SigLIP's query; features alone need none

    def model_post_init(self, context: object) -> None:
        """A patch too many or too few is no picture."""
        if self.image_size % self.patch_size:
            raise ConfigError(f"image_size={self.image_size} is no multiple of patch_size={self.patch_size}")

    @property
    def n_patches(self) -> int:
        """Of one image."""
        return (self.image_size // self.patch_size) ** 2


class Pool(nn.Module):
    """SigLIP's vector of an image: one learned query looks at all patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.attention = Attention(shape)
        self.norm = nn.LayerNorm(shape.dim, shape.norm_eps)
        self.feed_forward = FeedForward(shape)

    def forward(self, x: Tensor) -> Tensor:                                   # (B, N, D) -> (B, D)
        y = self.attention(self.query.expand(len(x), -1, -1), x)
        return (y + self.feed_forward(self.norm(y)))[:, 0]


class VisionTransformer(nn.Module):
    """Pixels -> features of patches (`forward`) or one vector (`pooled`)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        shape, is_clip = config.shape, config.kind == "clip"
        self.patches = nn.Conv2d(3, shape.dim, config.patch_size, config.patch_size, bias=not is_clip)
        self.places = nn.Parameter(torch.zeros(config.n_patches + is_clip, shape.dim))
        if is_clip:
            self.class_token = nn.Parameter(torch.zeros(shape.dim))
            self.first_norm = nn.LayerNorm(shape.dim, shape.norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.last_norm = nn.LayerNorm(shape.dim, shape.norm_eps)
        if not is_clip and config.pools:
            self.pool = Pool(shape)

    def forward(self, pixels: Tensor, depth: int | None = None) -> Tensor:    # (B, 3, S, S) -> (B, N, D)
        """Features of the patches, in rows from the top left. `depth` -2 is the last layer but one, which LLaVA takes:
        without the last norm and CLIP's class token. None: the last layer, with SigLIP's norm."""
        n_layers = self.config.shape.n_layers
        n = n_layers if depth is None else range(n_layers + 1)[depth]         # hidden states count the first input
        x = self._through(pixels, n)
        if self.config.kind == "clip":
            return x[:, 1:]
        return self.last_norm(x) if depth is None else x

    def pooled(self, pixels: Tensor) -> Tensor:                               # (B, 3, S, S) -> (B, D)
        """One vector for an image: CLIP's class token, SigLIP's query; the mean of the patches without one."""
        x = self._through(pixels, self.config.shape.n_layers)
        if self.config.kind == "clip":
            return self.last_norm(x[:, 0])
        x = self.last_norm(x)
        return self.pool(x) if self.config.pools else x.mean(dim=1)

    def _through(self, pixels: Tensor, n_layers: int) -> Tensor:              # (B, N or N + 1, D)
        x = self.patches(pixels).flatten(2).mT                                # (B, N, D)
        if self.config.kind == "clip":
            x = torch.cat((self.class_token.expand(len(x), 1, -1), x), dim=1)
        x = x + self.places
        if self.config.kind == "clip":
            x = self.first_norm(x)
        for layer in self.layers[:n_layers]:
            x = layer(x)
        return x
