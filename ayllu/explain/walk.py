"""One text through every step of a real run: shapes, values, the formula, the line that computes it, and a check.

Each step's values come from the run itself (record.py). Beside them the step is computed a second time, slowly and in
float64, from what went in; the largest difference is part of the step.

T tokens  D width  H query heads  K key/value heads  E head width  F feed-forward width  V vocabulary  L layers
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ayllu.errors import RequestError
from ayllu.explain.record import Record, record, slow_attention
from ayllu.explain.source import Line, find_line
from ayllu.model.llama import Llama, RMSNorm, rope_frequencies
from ayllu.model.transformer import Transformer, frequencies

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}    # of the largest value of the step


@dataclass(frozen=True)
class Value:
    """One tensor of a step, without the batch axis. `axes` names its axes: "T D"."""

    name: str
    axes: str
    tensor: Tensor


@dataclass(frozen=True)
class Step:
    """One step of the run. `difference` is the largest between the run and the slow computation, None at the ids."""

    key: str
    layer: int | None
    formula: str
    line: Line
    values: tuple[Value, ...]
    difference: float | None = None
    agrees: bool = True


@dataclass(frozen=True)
class Walk:
    """All steps, and what is needed to show them."""

    kind: str                                            # llama or transformer
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    layer: int
    n_layers: int
    steps: tuple[Step, ...]
    top: tuple[tuple[int, str, float], ...]              # (id, piece, probability) of what may come next
    dtype: str

    @property
    def agrees(self) -> bool:
        """Whether every step agrees with its slow computation."""
        return all(step.agrees for step in self.steps)


def walk(model: Llama | Transformer, ids: Sequence[int], pieces: Sequence[str], vocabulary: Any = None, *,
         layer: int = 0, top: int = 10) -> Walk:
    """Run the model over `ids` and walk through it, with one layer in full detail.

    `pieces` are the texts of the ids; `vocabulary(id) -> piece` names what may come next (None: the number).
    """
    n_layers = model.config.n_layers
    if not -n_layers <= layer < n_layers:
        raise RequestError(f"layer {layer} was asked for, this model has layers 0 to {n_layers - 1}")
    run = _Run(record(model, ids), layer % n_layers)
    probabilities = torch.softmax(run.record.logits[0, -1].double(), 0)
    best = probabilities.topk(min(top, len(probabilities)))
    rows = tuple((i, vocabulary(i) if vocabulary else str(i), p)
                 for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))
    dtype = str(model.tok_embeddings.weight.dtype).removeprefix("torch.")
    kind = "llama" if isinstance(model, Llama) else "transformer"
    return Walk(kind, run.record.ids, tuple(pieces), run.layer, n_layers, tuple(run.steps()), rows, dtype)


class _Run:
    """Builds the steps of one record; `at` is the prefix of the chosen layer's modules."""

    def __init__(self, recorded: Record, layer: int) -> None:
        self.record, self.layer, self.at = recorded, layer, f"layers.{layer}."
        self.model: Any = recorded.model                 # nn.Module's attributes have no types of their own
        self.config: Any = self.model.config
        self.is_llama = isinstance(self.model, Llama)
        self.file = "model/llama.py" if self.is_llama else "model/transformer.py"

    @property
    def turns(self) -> bool:
        """Whether positions turn q and k (rotary) instead of being added."""
        return self.is_llama or self.config.positions == "rope"

    def steps(self) -> list[Step]:
        """In the order in which the model computes."""
        literal = not self.is_llama and self.config.order == "literal"
        post = not self.is_llama and self.config.norm_place == "post"
        attention = [self.project(), *([self.rotate()] if self.turns else []), self.weigh(), self.mix(), self.merge()]
        if literal:
            inside = [*attention, self.feed_forward(), self.normalise("norm")]
        elif post:
            inside = [*attention, self.add("attention"), self.normalise("attention_norm"),
                      self.feed_forward(), self.add("feed_forward"), self.normalise("ffn_norm")]
        else:
            inside = [self.normalise("attention_norm"), *attention, self.add("attention"),
                      self.normalise("ffn_norm"), self.feed_forward(), self.add("feed_forward")]
        last = [] if post else [self.normalise("norm", of_layer=False)]
        return [self.tokenise(), self.embed(), self.positions(), *inside, self.layers(), *last,
                self.logits(), self.distribution()]

    def line(self, fragment: str, after: str = "", file: str | None = None) -> Line:
        return _line(file or self.file, fragment, after)

    def out(self, name: str) -> Tensor:
        return self.record.outputs[name][0]

    def into(self, name: str) -> Tensor:
        return self.record.inputs[name][0]

    def step(self, key: str, formula: str, line: Line, values: Sequence[Value], slow: Sequence[Tensor],
             fast: Sequence[Tensor], of_layer: bool = True) -> Step:
        """`slow` and `fast` are the same numbers, computed twice."""
        difference = max(_difference(a, b) for a, b in zip(slow, fast, strict=True))
        largest = max(b.abs().max().item() for b in fast)
        limit = TOLERANCE[self.record.logits.dtype] * max(largest, 1e-3)
        return Step(key, self.layer if of_layer else None, formula, line, tuple(values), difference,
                    difference <= limit)

    def tokenise(self) -> Step:
        return Step("ids", None, "ids = encode(text)", _line("text/tokenizer.py", "def encode(", "class Tokenizer"), ())

    def embed(self) -> Step:
        x = self.out("tok_embeddings")
        slow = self.model.tok_embeddings.weight[list(self.record.ids)]
        if self.is_llama:
            formula, line = "x = E[id]", self.line("self.tok_embeddings(ids)", "def embed")
        else:
            formula, line = "x = E[id]·√D", self.line("math.sqrt(self.config.dim)", "def embed")
            scale = self.config.dim ** 0.5 if self.config.positions == "sinusoidal" else 1.0
            formula = formula if scale != 1.0 else "x = E[id]"
            x, slow = x * scale, slow.double() * scale
        return self.step("embedding", formula, line, [Value("x", "T D", x)], [slow], [x], of_layer=False)

    def angles(self) -> tuple[Tensor, float]:
        """Radians (T, E/2) by which each pair turns at each position, and YaRN's factor."""
        T, E = len(self.record.ids), self.config.head_dim
        if self.is_llama:
            per_position, temperature = rope_frequencies(self.config, torch.tensor(T))
        else:
            per_position, temperature = frequencies(E, torch.device("cpu")), 1.0
        return torch.arange(T).double()[:, None] * per_position.double(), temperature

    def positions(self) -> Step:
        if not self.turns:
            return self.add_sinusoids()
        angles, temperature = self.angles()
        T = len(self.record.ids)
        if self.is_llama:
            rope = self.model.rope(torch.arange(T), torch.float32)
            line = self.line("* frequencies", "def rope(")
        else:
            from ayllu.model.transformer import rotation
            rope = rotation(torch.arange(T), self.config.head_dim, torch.float32)
            line = self.line("angles = positions.reshape", "def rotation")
        half = self.config.head_dim // 2
        fast = [rope.cos[0, :, 0, :half], rope.sin[0, :, 0, :half]]
        slow = [angles.cos() * temperature, angles.sin() * temperature]
        return self.step("angles", "θ(p, i) = p · base^(−2i/E)", line, [Value("θ", "T E/2", angles)], slow, fast,
                         of_layer=False)

    def add_sinusoids(self) -> Step:
        T, D = len(self.record.ids), self.config.dim
        p, i = torch.arange(T).double()[:, None], torch.arange(0, D, 2).double()
        turned = p / 10_000 ** (i / D)                                       # (T, D/2)
        added = torch.stack((turned.sin(), turned.cos()), -1).flatten(1)     # (T, D)
        x = self.into("layers.0.attention") if self.config.norm_place == "post" else self.into("layers.0")
        slow = self.out("tok_embeddings").double() * D**0.5 + added
        return self.step("sinusoids", "PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(…); x = x + PE",
                         self.line("x = x + sinusoids"), [Value("PE", "T D", added), Value("x + PE", "T D", x)],
                         [slow], [x], of_layer=False)

    def normalise(self, name: str, of_layer: bool = True) -> Step:
        path = self.at + name if of_layer else name
        module = self.model.get_submodule(path)
        x, y = self.into(path).double(), self.out(path)
        key = {"norm": "last_norm" if not of_layer else "layer_norm"}.get(name, name)
        if isinstance(module, RMSNorm):
            slow = x / (x.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight.double()
            formula, line = "x / √(mean(x²) + ε) · w", self.line("torch.rsqrt", "class RMSNorm", "model/llama.py")
        else:
            centred = x - x.mean(-1, keepdim=True)
            deviation = (centred.square().mean(-1, keepdim=True) + module.eps).sqrt()
            slow = centred / deviation * module.weight.double() + module.bias.double()
            formula, line = "(x − mean(x)) / √(var(x) + ε) · w + b", self.line("nn.LayerNorm", "def _norm")
        return self.step(key, formula, line, [Value("norm(x)", "T D", y)], [slow], [y], of_layer)

    def project(self) -> Step:
        names = ("wq", "wk", "wv")
        x = self.into(self.at + "attention.wq")
        fast = [self.out(f"{self.at}attention.{n}") for n in names]
        slow = [_linear(x, self.model.get_submodule(f"{self.at}attention.{n}")) for n in names]
        values = [Value(n[1:], f"T {'H' if n == 'wq' else 'K'} E", y.view(len(y), -1, self.config.head_dim))
                  for n, y in zip(names, fast, strict=True)]
        return self.step("qkv", "q = x·Wqᵀ,  k = x·Wkᵀ,  v = x·Wvᵀ",
                         self.line("q = self.wq(x)", "class Attention"), values, slow, fast)

    def rotate(self) -> Step:
        mix, (angles, temperature) = self.record.mixes[self.layer], self.angles()
        fast, slow = [mix.q[0], mix.k[0]], []
        for name in ("wq", "wk"):
            x = self.out(f"{self.at}attention.{name}").double().view(len(self.record.ids), -1, self.config.head_dim)
            a, b = x.chunk(2, -1)
            turned = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)[:, None] * temperature
            slow.append(torch.cat((turned.real, turned.imag), -1))
        return self.step("rotation", "(qᵢ + i·qᵢ₊E/₂)·e^(iθ), and k likewise",
                         self.line("return x * self.cos", "class Rope", "model/llama.py"),
                         [Value("q", "T H E", fast[0]), Value("k", "T K E", fast[1])], slow, fast)

    def weigh(self) -> Step:
        mix = self.record.mixes[self.layer]
        weights, mixed = slow_attention(mix.q[0], mix.k[0], mix.v[0], self.config.window(self.layer))
        return self.step("weights", "A = softmax(q·kᵀ / √E + mask)",
                         self.line("F.scaled_dot_product_attention", "def sdpa", "model/attend.py"),
                         [Value("A", "H T T", weights)], [mixed], [mix.y[0]])

    def mix(self) -> Step:
        mix = self.record.mixes[self.layer]
        mixed = slow_attention(mix.q[0], mix.k[0], mix.v[0], self.config.window(self.layer))[1]
        return self.step("mixed", "y = A·v", self.line("y = attend(", "class Attention"),
                         [Value("y", "T H E", mix.y[0])], [mixed], [mix.y[0]])

    def merge(self) -> Step:
        path = self.at + "attention.wo"
        y = self.out(path)
        return self.step("merged", "o = [y₁ … y_H]·Woᵀ", self.line("self.wo(y.reshape", "class Attention"),
                         [Value("o", "T D", y)], [_linear(self.into(path), self.model.get_submodule(path))], [y])

    def add(self, part: str) -> Step:
        """x + part(...): what goes in is known from the modules around it."""
        post = not self.is_llama and self.config.norm_place == "post"
        if part == "attention":
            before = self.into(self.at + ("attention" if post else "attention_norm"))
            after = self.into(self.at + ("attention_norm" if post else "ffn_norm"))
        else:
            before = self.into(self.at + ("feed_forward" if post else "ffn_norm"))
            after = self.into(self.at + "ffn_norm") if post else self.record.outputs[self.at[:-1]][0]
        slow = before.double() + self.out(self.at + part).double()
        fragment = "self.dropout(self." + part
        block = "class Block"
        if not self.is_llama:
            block = "x = self.attention_norm(" if post else "if self.is_pre:"
        line = self.line(fragment, block)
        return self.step(f"residual_{part}", "x = x + o" if part == "attention" else "x = x + f", line,
                         [Value("x", "T D", after)], [slow], [after])

    def feed_forward(self) -> Step:
        path = self.at + "feed_forward."
        w1, inner, f = self.out(path + "w1"), self.into(path + "w2"), self.out(path + "w2")
        slow = [_linear(self.into(path + "w1"), self.model.get_submodule(path + "w1"))]
        if path + "w3" in self.record.outputs:
            w3 = self.out(path + "w3")
            slow += [_linear(self.into(path + "w3"), self.model.get_submodule(path + "w3")),
                     F.silu(w1.double()) * w3.double()]
            values = [Value("silu(W₁x)", "T F", F.silu(w1)), Value("W₃x", "T F", w3), Value("product", "T F", inner)]
            fast, formula = [w1, w3, inner], "f = W₂(silu(W₁x) · W₃x)"
            line = self.line("F.silu(self.w1(x))")
        else:
            slow.append(w1.double().clamp(min=0))
            values, fast = [Value("max(0, xW₁+b₁)", "T F", inner)], [w1, inner]
            formula, line = "f = max(0, x·W₁ + b₁)·W₂ + b₂", self.line("F.relu(self.w1(x))")
        slow.append(_linear(inner, self.model.get_submodule(path + "w2")))
        return self.step("feed_forward", formula, line, [*values, Value("f", "T D", f)], slow, [*fast, f])

    def layers(self) -> Step:
        """The size of each token's vector after each layer; checked: what leaves a layer enters the next one."""
        outputs = [self.out(f"layers.{i}") for i in range(self.config.n_layers)]
        rms = torch.stack([y.double().square().mean(-1).sqrt() for y in outputs])            # (L, T)
        following = [self.into(f"layers.{i + 1}") for i in range(self.config.n_layers - 1)]
        return self.step("layers", "x = layer_L(… layer_1(x))",
                         self.line("for layer, attend in zip", "def trunk"), [Value("rms(x)", "L T", rms)],
                         outputs, [*following, outputs[-1]], of_layer=False)

    def logits(self) -> Step:
        logits = self.record.logits[0, -1]
        last = f"layers.{self.config.n_layers - 1}"
        h = self.out("norm" if "norm" in self.record.outputs else last)[-1].double()
        head = self.model.tok_embeddings if self.config.tie_embeddings else self.model.output
        return self.step("logits", "l = h_T·Wᵀ", self.line("self.output(h)", "def logits"),
                         [Value("l", "V", logits)], [head.weight.double() @ h], [logits], of_layer=False)

    def distribution(self) -> Step:
        logits = self.record.logits[0, -1]
        slow = (logits.double() - logits.double().max()).exp()
        fast = torch.softmax(logits.float(), 0)
        return self.step("distribution", "p = exp(l) / Σ exp(l)",
                         self.line("softmax(-1)", "def draw(", "model/sample.py"), [Value("p", "V", fast)],
                         [slow / slow.sum()], [fast], of_layer=False)


@cache
def _line(file: str, fragment: str, after: str = "") -> Line:
    return find_line(file, fragment, after)


def _linear(x: Tensor, module: nn.Module) -> Tensor:
    """x·Wᵀ + b in float64."""
    assert isinstance(module, nn.Linear)
    y = x.double() @ module.weight.double().T
    return y if module.bias is None else y + module.bias.double()


def _difference(slow: Tensor, fast: Tensor) -> float:
    return (slow.double().reshape(-1) - fast.double().reshape(-1)).abs().max().item()
