"""Heads: what a text is, or each of its tokens, read off a model's last hidden states.

The linear layer is called `score` and has no bias, as in Hugging Face's LlamaForSequenceClassification, so that its
weights load there. With the causal mask and the last token pooled, the logits are the same.

B batch  T tokens  D width  N outputs  E head width
"""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ayllu.config import Settings
from ayllu.model.attend import Attend, Masked
from ayllu.model.build import CausalModel
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import STD, generator
from ayllu.model.llama import Llama

Kind = Literal["single", "multi", "tokens", "regression"]
TooLong = Literal["error", "begin", "ends"]              # begin keeps a text's first tokens; ends its first and last


class HeadConfig(Settings):
    """Every field that changes what a head computes."""

    kind: Kind = "single"                                # one label of many; some of many; one for each token; a number
    n_outputs: int = Field(gt=0)
    pooling: Literal["mean", "last"] = "mean"            # of a text's hidden states; tokens aren't pooled
    attention: Literal["both", "causal"] = "both"        # both: a token sees what follows it, too
    dropout: float = Field(default=0.1, ge=0, lt=1)      # of what the linear layer reads, in training


class Classifier(nn.Module):
    """A body without its own output layer, and a linear layer over its hidden states."""

    def __init__(self, body: CausalModel, head: HeadConfig, seed: int = 0) -> None:
        super().__init__()
        self.body, self.head = headless(body), head
        self.dropout = nn.Dropout(head.dropout)
        self.score = nn.Linear(body.config.dim, head.n_outputs, bias=False)
        first = torch.empty(head.n_outputs, body.config.dim).normal_(0, STD, generator=generator(seed, "score.weight"))
        self.score.weight = nn.Parameter(first.to(body.tok_embeddings.weight.device))

    @property
    def config(self) -> LlamaConfig | TransformerConfig:
        """The body's shape."""
        return self.body.config

    def forward(self, ids: Tensor, is_token: Tensor) -> Tensor:               # (B, T), (B, T) -> (B, N) or (B, T, N)
        """Logits in float32. `is_token` is False on padding, which stands at the right."""
        h = self.hidden(ids, is_token)                                        # (B, T, D)
        if self.head.kind != "tokens":
            h = pooled(h, is_token, self.head.pooling)                        # (B, D)
        return self.score(self.dropout(h).to(self.score.weight.dtype)).float()

    def hidden(self, ids: Tensor, is_token: Tensor) -> Tensor:                # (B, T), (B, T) -> (B, T, D)
        """The last hidden states; those of padding mean nothing."""
        return self.body.trunk(self.body.embed(ids), attends=self.attends(is_token))

    def attends(self, is_token: Tensor) -> Sequence[Attend]:
        """Who sees whom in each layer. Causal attention never sees padding at the right; the other kind must not."""
        if self.head.attention == "causal":
            return self.body.causal()
        config, T = self.body.config, is_token.shape[1]
        place = torch.arange(T, device=is_token.device)
        distance = (place[:, None] - place[None, :]).abs()                    # (T, T)
        seen = is_token[:, None, :] | (distance == 0)                         # (B, T, T); no row without a key
        dropout = config.attention_dropout if self.training and isinstance(config, LlamaConfig) else 0.0
        return [Masked(seen & (distance < (config.window(i) or T)), dropout) for i in range(config.n_layers)]


def pooled(h: Tensor, is_token: Tensor, how: Literal["mean", "last"]) -> Tensor:      # (B, T, D) -> (B, D)
    """The hidden state of each text's last token, or the mean over its tokens."""
    if how == "last":
        last = is_token.sum(1) - 1                                            # (B,)
        return h[torch.arange(len(h), device=h.device), last]
    weight = is_token.to(h.dtype)[..., None]                                  # (B, T, 1)
    return (h * weight).sum(1) / weight.sum(1)


def headless(body: CausalModel) -> CausalModel:
    """The same model, over the same layers, without an output layer of its own: one with tied embeddings has none."""
    if body.config.tie_embeddings:
        return body
    twin = copy.copy(body)
    twin._modules = {name: part for name, part in body._modules.items() if name != "output"}
    if isinstance(twin, Llama):
        twin.config = twin.config.model_copy(update={"tie_embeddings": True})
    else:
        twin.config = twin.config.model_copy(update={"tie_embeddings": True})
    return twin
