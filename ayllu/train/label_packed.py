"""Texts side by side in one row without filling, in bfloat16 on a CPU with AMX: how a head labels many texts fast.

A batch is so many tokens, whatever texts they come from; attention looks at each token's own text only. The slow
twin is `logits_of` (heads_loss.py) over the same weights in float32; tests/train/test_label_packed.py says how near
they are.

N tokens  D width  E head width  C outputs
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ayllu.data.label_loader import Texts
from ayllu.data.text_packs import batches
from ayllu.engine.paths import runner_for
from ayllu.model.attend import Within
from ayllu.model.fused import FusedRunner, why_not_fused
from ayllu.model.heads import Classifier
from ayllu.model.llama import Llama
from ayllu.native.attention import fits
from ayllu.native.build import missing
from ayllu.train.trainee import NativeAttend


def why_not(model: Classifier) -> str | None:
    """Why this classifier can't be run so, as the end of a sentence; None where it can."""
    if (reason := missing()) is not None:
        return reason
    if not isinstance(model.body, Llama) or model.body.tok_embeddings.weight.device.type != "cpu":
        return "it is for Llamas on the CPU"
    E = model.body.config.head_dim
    if not fits(torch.empty(1, 1, 1, E, dtype=torch.bfloat16), torch.empty(1, 1, 1, E, dtype=torch.bfloat16)):
        return f"the kernel takes no heads of width {E}"
    return why_not_fused(model.body)


class Packed:
    """Takes the classifier's body over, rounded to bfloat16."""

    def __init__(self, model: Classifier) -> None:
        assert isinstance(model.body, Llama)
        self.head, self.config = model.head, model.body.config
        self.score = model.score.weight.detach().float()                      # (C, D)
        self.runner = runner_for(FusedRunner(model.body.to(torch.bfloat16)), True)

    @torch.inference_mode()
    def logits(self, texts: Texts) -> list[Tensor]:
        """As `logits_of` gives them."""
        out: list[Tensor] = [torch.empty(0)] * len(texts)
        for batch in batches([len(ids) for ids in texts.ids]):
            h = self._hidden([texts.ids[i] for i in batch])                   # (N, D) in float32
            parts = h.split([len(texts.ids[i]) for i in batch])
            if self.head.kind == "tokens":
                marks = [torch.tensor(texts.labels[i]) >= 0 for i in batch]
                found = [part[mark] @ self.score.T for part, mark in zip(parts, marks, strict=True)]
            else:
                pooled = [part[-1] if self.head.pooling == "last" else part.mean(0) for part in parts]
                found = list(torch.stack(pooled) @ self.score.T)
            for i, logits in zip(batch, found, strict=True):
                out[i] = logits
        return out

    def _hidden(self, rows: Sequence[list[int]]) -> Tensor:
        lengths = torch.tensor([len(row) for row in rows])
        ends = lengths.cumsum(0)
        begin, end = ((x.repeat_interleave(lengths)) for x in (ends - lengths, ends))             # (N,) each
        place = torch.arange(len(begin))
        ids = torch.tensor([i for row in rows for i in row])
        attends = [NativeAttend(self._sees(place, begin, end, self.config.window(layer)))
                   for layer in range(self.config.n_layers)]
        assert isinstance(self.runner, FusedRunner)
        return self.runner.flat(ids, place - begin, attends).float()

    def _sees(self, place: Tensor, begin: Tensor, end: Tensor, window: int | None) -> Within:
        """Each token its text: what came before it, and what follows where the head looks both ways."""
        end = end if self.head.attention == "both" else place + 1
        if window is not None:
            begin, end = torch.maximum(begin, place - window + 1), torch.minimum(end, place + window)
        return Within(begin[None].int(), end[None].int())
