"""Few-shot by learning: a linear probe over hidden states, and an adapter with a head; and who is near to whom.

N texts  M examples  D width  C labels
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.adapters.config import LoraConfig
from ayllu.adapters.lora import attach, detach, new_adapter
from ayllu.data.label_loader import LabelLoader, Texts
from ayllu.model.build import CausalModel
from ayllu.model.heads import Classifier, HeadConfig, pooled
from ayllu.model.llama import Llama
from ayllu.train.heads_loss import label_loss, logits_of
from ayllu.train.loop import LoopConfig, LossFunction, fit
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.report import Unseen
from ayllu.train.schedule import Schedule
from ayllu.train.state import TrainState

CPU = torch.device("cpu")
STRENGTH = 1.0                                           # of the probe's weight decay: half the sum of squares
STEPS, BATCH = 40, 8                                     # of an adapter


@torch.no_grad()
def features(body: Llama, ids: Sequence[list[int]], rows: int = 32) -> Tensor:       # (N, D)
    """The mean over each text's tokens of what the last layer gives."""
    texts, out = Texts(list(ids), [0] * len(ids)), torch.empty(len(ids), body.config.dim)
    for numbers, batch in texts.in_order(rows):
        out[numbers] = pooled(body.trunk(body.embed(batch.ids)), batch.is_token, "mean").float()   # causal: no padding
    return out


def nearest(of: Tensor, among: Tensor, labels: Sequence[int], k: int) -> list[list[int]]:
    """(N,) lists: for each row of `of`, the numbers of the k nearest of each label, the nearest last. Near is a small
    angle once the mean over `among` is taken away."""
    mean = among.mean(0)
    close = F.normalize(of - mean, dim=1) @ F.normalize(among - mean, dim=1).T              # (N, M)
    numbers = torch.tensor(labels)
    out: list[list[int]] = []
    for row in close:
        chosen: list[int] = []
        for c in numbers.unique():
            own = (numbers == c).nonzero()[:, 0]
            chosen += own[row[own].argsort(descending=True)[:k]].tolist()
        out.append(sorted(chosen, key=lambda i: row[i].item()))
    return out


def probe(x: Tensor, labels: Sequence[int], n_labels: int, of: Tensor) -> Tensor:        # (M, D), (N, D) -> (N, C)
    """log p by logistic regression with L2, on features of mean 0 and spread 1 over the examples."""
    mean, spread = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x, y = ((x - mean) / spread).double(), torch.tensor(labels)
    weight = torch.zeros(n_labels, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(_affine(x, weight), y, reduction="sum") + STRENGTH / 2 * weight[:, :-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return _affine(((of - mean) / spread).double(), weight).log_softmax(-1)


def _affine(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight[:, :-1].T + weight[:, -1]


def adapter(body: Llama, examples: Texts, n_labels: int, of: Texts, seed: int) -> Tensor:    # (N, C)
    """log p of a head with LoRA that learned the examples by the one loop; the body is afterwards as it was."""
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16)
    attach(body, new_adapter(body, config, seed))
    model = Classifier(body, HeadConfig(n_outputs=n_labels), seed)
    size = min(BATCH, len(examples))
    loop = LoopConfig(steps=STEPS, batch_size=size, micro_batch=size, eval_every=STEPS, checkpoint_every=STEPS,
                      async_save=False, precision="float32")
    optim = OptimConfig(lr=2e-3, weight_decay=0.0, schedule=Schedule(warmup_steps=4))
    try:
        state = TrainState(cast(CausalModel, model), build_optimizer(model, optim))
        with TemporaryDirectory() as run:
            fit(state, LabelLoader(examples, size, seed), cast(LossFunction, label_loss), loop=loop, optim=optim,
                run=Path(run), observer=Unseen(), evaluate=lambda _: {}, device=CPU)
        return torch.stack(logits_of(model, of, 32, CPU)).double().log_softmax(-1)
    finally:
        detach(body, config)
        body.requires_grad_(False)
