"""The drawing names every part of the real model, and is a flowchart that leads from ids to probabilities."""

import itertools
import re

import pytest
import torch
from torch import nn

from ayllu.explain.mermaid import draw
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.presets import preset
from ayllu.model.transformer import Transformer

CLASSIC = TransformerConfig(dim=64, n_layers=3, n_heads=8, n_kv_heads=8, head_dim=8, hidden_dim=256, vocab_size=200)
CONFIGS = [preset("llama2-7b"), preset("llama3.2-1b"), preset("mistral-7b"), preset("qwen2-7b"),
           preset("stories15m").model_copy(update={"embedding_dropout": 0.1}), CLASSIC,
           CLASSIC.model_copy(update={"order": "literal"}),
           CLASSIC.model_copy(update={"order": "literal", "feed_forward": "swiglu", "positions": "rope"}),
           CLASSIC.model_copy(update={"norm_place": "pre", "norm": "rmsnorm", "feed_forward": "swiglu",
                                      "positions": "rope", "n_kv_heads": 2, "tie_embeddings": False})]
NODE = re.compile(r'(\w+)(\(\["[^"]*"\]\)|\["[^"]*"\]|\(\("[^"]*"\)\))?')


def parse(chart: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Nodes with their texts and edges, of the part of Mermaid's language that we write; anything else fails."""
    nodes: dict[str, str] = {}
    edges = []
    lines = chart.splitlines()
    assert lines[0] == "flowchart TD"
    for line in map(str.strip, lines[1:]):
        if re.fullmatch(r'subgraph layers\["[^"]*"\]|direction TB|end', line):
            continue
        chain = []
        for step in re.split(r' --> | -- "[^"]*" --> ', line):
            names = []
            for word in step.split(" & "):
                match = NODE.fullmatch(word)
                assert match, (line, word)
                names.append(match[1])
                if match[2]:
                    nodes[match[1]] = match[2].strip('()[]"')
            chain.append(names)
        edges += [(a, b) for left, right in itertools.pairwise(chain) for a in left for b in right]
    return nodes, edges


@pytest.mark.parametrize("config", CONFIGS)
def test_the_chart_shows_the_real_model(config: LlamaConfig | TransformerConfig):
    with torch.device("meta"):
        model = Llama(config) if isinstance(config, LlamaConfig) else Transformer(config)
    chart = draw(config)
    nodes, edges = parse(chart)
    assert {n for edge in edges for n in edge} == set(nodes)                 # no node undefined, none left alone
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ("layers.0." in name or name == "output"):
            assert f"Linear {module.in_features} → {module.out_features}" in nodes[name.split(".")[-1]]
    kinds = {type(m).__name__ for m in model.modules() if any(True for _ in m.parameters(recurse=False))}
    assert all(kind in chart for kind in kinds), kinds
    assert f"{config.n_layers} layers" in chart
    reached, todo = set(), ["ids"]
    while todo:
        node = todo.pop()
        reached.add(node)
        todo += [b for a, b in edges if a == node and b not in reached]
    assert set(nodes) - reached <= {"positions", "sinusoids"}
    assert "softmax" in reached


def test_order_of_norms():
    _, llama = parse(draw(preset("llama2-7b")))
    assert ("attention_norm", "wq") in llama
    assert ("x", "add1") in llama
    _, paper = parse(draw(CLASSIC))
    assert ("add1", "attention_norm") in paper
    assert ("x", "wq") in paper
    _, literal = parse(draw(CLASSIC.model_copy(update={"order": "literal"})))
    assert ("wo", "w1") in literal
    assert not [edge for edge in literal if "add1" in edge]                  # no residual
