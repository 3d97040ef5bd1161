"""Texts side by side in one row without filling, on a CPU: how a head labels many texts fast.

A batch is so many tokens, whatever texts they come from; attention looks at each token's own text only. With AMX in
bfloat16, elsewhere in float32, each thread with batches of its own. The slow twin is `logits_of` (heads_loss.py) in
float32; tests/train/test_label_packed.py says how near they are.

N tokens  B texts  D width  C outputs
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from ayllu.data.label_loader import Texts
from ayllu.data.text_packs import TOKENS, batches, pack
from ayllu.engine.paths import runner_for, uses_native
from ayllu.model.attend import Apart, Within
from ayllu.model.fused import FusedRunner, TorchMatrix, why_not_fused
from ayllu.model.heads import Classifier
from ayllu.model.llama import Llama
from ayllu.native.attention import fits
from ayllu.native.build import missing
from ayllu.native.pool import pool_memory
from ayllu.train.heads_packed import attends, pooled
from ayllu.train.trainee import NativeAttend

FLOAT32_TOKENS = 1024                                    # whose numbers between two products stay near the cores


def why_not(model: Classifier) -> str | None:
    """Why this classifier can't be run so, as the end of a sentence; None where it can."""
    is_on_cpu = model.score.weight.device.type == "cpu"
    return why_not_fused(model.body, TorchMatrix) if is_on_cpu else "it is for the CPU"


class Packed:
    """With AMX it takes the classifier's body over, rounded to bfloat16; in float32 it shares the weights."""

    def __init__(self, model: Classifier, rounds: bool = True) -> None:
        one = torch.empty(1, 1, 1, model.config.head_dim, dtype=torch.bfloat16)
        assert isinstance(model.body, Llama)
        self.model, self.score = model.eval(), model.score.weight.detach().float()   # (C, D)
        self.rounds = rounds and missing() is None and fits(one, one)
        if not self.rounds:
            pool_memory()                                # a tenth of the time went into asking for it
        fused = (FusedRunner(model.body.to(torch.bfloat16)) if self.rounds else
                 FusedRunner(model.body.float(), shares=True, make=TorchMatrix))
        runner = runner_for(fused, uses_native("auto", fused.device, fused.dtype))
        assert isinstance(runner, FusedRunner)
        self.runner = runner

    def logits(self, texts: Texts) -> list[Tensor]:
        """As `logits_of` gives them."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts.ids[i]))   # neighbours of one length are one call
        packs = [[order[place] for place in places] for places in
                 batches([len(texts.ids[i]) for i in order], TOKENS if self.rounds else FLOAT32_TOKENS)]
        if self.rounds or len(packs) < (threads := torch.get_num_threads()):
            found = [self._logits(texts, rows) for rows in packs]
        else:
            self.runner.rotations(len(texts.ids[order[0]]))   # a table that threads share must not grow under them
            try:
                with ThreadPoolExecutor(threads, "ayllu-labels", torch.set_num_threads, (1,)) as pool:
                    found = list(pool.map(lambda rows: self._logits(texts, rows), packs))
            finally:
                torch.set_num_threads(threads)           # threads that are made later take over what was set last
        by_text = dict(zip(order, (logits for some in found for logits in some), strict=True))
        return [by_text[i] for i in range(len(texts))]

    @torch.inference_mode()
    def _logits(self, texts: Texts, rows: Sequence[int]) -> Sequence[Tensor]:
        batch, head, config = pack(texts, rows), self.model.head, self.model.config
        count, kept = batch.text.bincount(), None                             # (B,)
        if self.rounds or any(config.window(layer) for layer in range(config.n_layers)):
            seen = [NativeAttend(one) if isinstance(one, Within) else one
                    for one in attends(self.model, batch, self.rounds)]
        else:
            apart = Apart(tuple(count.tolist()), head.attention == "causal")
            seen = [apart] * config.n_layers
            if head.kind != "tokens" and head.pooling == "last":
                seen[-1], kept = replace(apart, of_last=True), count.cumsum(0) - 1
        h = self.runner.flat(batch.ids, batch.place, seen, kept=kept).float()
        if head.kind == "tokens":
            parts = zip((h @ self.score.T).split(count.tolist()), batch.labels.split(count.tolist()), strict=True)
            return [logits[labels >= 0] for logits, labels in parts]
        return ((h if kept is not None else pooled(h, batch.text, head)) @ self.score.T).unbind()
