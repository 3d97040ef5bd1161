"""What turns a head's logits into probabilities and decisions to be believed, fitted on rows it didn't learn from.

Temperature scaling divides logits by one number (arXiv:1706.04599, section 4.2). Thresholds say from which probability
a label of many is given.

B rows  N labels
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0


def temperature(logits: Tensor, labels: Tensor, kind: str) -> float:       # (B, N), (B,) or (B, N)
    """The number that lowers the loss most, by golden-section search over its logarithm: the loss has one valley.

    A share of 1 / (B + 2) of each label is spread over all, after Platt (1999): where every row is right, the plain
    loss would make the head ever surer.
    """
    spread = 1 / (len(labels) + 2)

    def loss(log_t: float) -> float:
        scaled = logits.double() / torch.tensor(log_t, dtype=torch.float64).exp()
        if kind == "multi":
            return F.binary_cross_entropy_with_logits(scaled, labels.double() * (1 - spread) + spread / 2).item()
        return F.cross_entropy(scaled, labels, label_smoothing=spread).item()

    low, high = (torch.tensor(t, dtype=torch.float64).log().item() for t in (LOWEST, HIGHEST))
    golden = (5**0.5 - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-4:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = loss(b)
    return float(torch.tensor((low + high) / 2).exp())


def thresholds(probabilities: Tensor, labels: Tensor) -> list[float]:      # (B, N), (B, N) of 0 and 1
    """For each label, the probability from which it is given that brings its F1 highest; 0.5 where no row has it.

    Between two neighbouring rows the middle is taken, so that a new row on either side falls where these did.
    """
    out = []
    for p, y in zip(probabilities.T.double(), labels.T, strict=True):
        if not y.any():
            out.append(0.5)
            continue
        order = p.argsort(descending=True, stable=True)
        hits = y[order].cumsum(0)                                          # (B,): right ones among the first k
        given = torch.arange(1, len(p) + 1)
        f1 = 2 * hits / (given + y.sum())
        ends = torch.cat((p[order][:-1] > p[order][1:], torch.tensor([True])))   # equal probabilities go together
        k = int(torch.where(ends, f1, -1.0).argmax())
        below = p[order][k + 1].item() if k + 1 < len(p) else 0.0
        out.append((p[order][k].item() + below) / 2)
    return out


def probabilities(logits: Tensor, kind: str, by: float) -> Tensor:         # (..., N) -> (..., N)
    """Of logits and a temperature; a number is no probability and stays as it is."""
    if kind == "regression":
        return logits
    return (logits / by).sigmoid() if kind == "multi" else (logits / by).softmax(-1)
