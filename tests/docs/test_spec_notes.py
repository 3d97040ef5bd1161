"""docs/spec-notes.md: quoted lines stand where the page says and compute the formula beside them, in both languages."""

import math
import re
from pathlib import Path

import pytest
import torch
from quotes import QUOTE, misplaced

from ayllu.cli.table import COMMANDS, Family
from ayllu.explain.mermaid import draw
from ayllu.model.attend import Causal
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import FeedForward, Llama, RMSNorm
from ayllu.model.presets import preset
from ayllu.model.transformer import Attention, ReluFeedForward, Transformer, sinusoids

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("spec-notes.md", "spec-notes.zh-CN.md")}
CONFIG = TransformerConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=24, vocab_size=30)


@pytest.mark.parametrize("page", PAGES)
def test_quoted_lines_stand_where_the_page_says(page: str):
    assert len(QUOTE.findall(PAGES[page])) == PAGES[page].count("```python") == 14
    assert misplaced(PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_files_and_commands_exist(page: str):
    text = PAGES[page]
    for link in re.findall(r"\]\(([^)#]*)", text):
        assert not link or (ROOT / "docs" / link).exists(), link
    for path in re.findall(r"`((?:recipes|tests|docs|ayllu)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path
    for command, second in re.findall(r"`ayllu ([\w-]+)(?: (\w+))?", text):
        row = COMMANDS[command]
        assert not isinstance(row, Family) or second in row.rows
    for name, value in re.findall(r'`(\w+) = "(\w+)"`', text):
        assert value in str(TransformerConfig.model_fields[name].annotation)


def test_both_languages_have_the_same_content():
    english, chinese = PAGES.values()
    for pattern in (r"```python\n.*?```", r"\$\$.*?\$\$", r"^\|.*", r"^##+ ", r"recipes/[\w/.]+",
                    r"\]\(\.\./[^).]+\.py\)"):
        found = [re.findall(pattern, text, re.DOTALL if "```" in pattern else re.MULTILINE)
                 for text in (english, chinese)]
        assert len(found[0]) == len(found[1]) > 0, pattern
        if not pattern.startswith("^"):
            assert found[0] == found[1], pattern


@pytest.mark.parametrize("page", PAGES)
def test_the_drawing_is_the_model_that_runs(page: str):
    assert f"```mermaid\n{draw(preset('llama2-7b'))}```" in PAGES[page]


# The formulas themselves, each from scratch.

def test_embedding():
    model = Transformer(CONFIG).eval()
    ids = torch.tensor([[3, 7]])
    assert torch.allclose(model.embed(ids)[0], model.tok_embeddings.weight[[3, 7]] * math.sqrt(16))


def test_attention():
    attention, x = Attention(CONFIG), torch.randn(1, 5, 16)
    q, k, v = (getattr(attention, n)(x)[0].view(5, 2, 8).transpose(0, 1) for n in ("wq", "wk", "wv"))    # (H, T, E)
    future = torch.ones(5, 5).triu(1).bool()
    a = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(future, -torch.inf).softmax(-1)
    slow = (a @ v).transpose(0, 1).reshape(5, 16) @ attention.wo.weight.T
    assert torch.allclose(attention(x, lambda y: y, Causal())[0], slow, atol=1e-6)


def test_feed_forward():
    x, relu = torch.randn(4, 16), ReluFeedForward(CONFIG)
    slow = torch.maximum(torch.zeros(()), x @ relu.w1.weight.T + relu.w1.bias) @ relu.w2.weight.T + relu.w2.bias
    assert torch.allclose(relu(x), slow, atol=1e-6)
    llama = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=24, vocab_size=30)
    gated = FeedForward(llama)
    one, three = x @ gated.w1.weight.T, x @ gated.w3.weight.T
    assert torch.allclose(gated(x), (one / (1 + (-one).exp()) * three) @ gated.w2.weight.T, atol=1e-6)


def test_positions():
    added = sinusoids(torch.arange(50), 16)
    for p in (0, 1, 49):
        for i in range(8):
            angle = p / 10_000 ** (2 * i / 16)
            assert added[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert added[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_whole_model_and_its_orders():
    ids, positions = torch.tensor([[3, 7, 9]]), torch.arange(3)
    for order in ("paper", "literal"):
        model = Transformer(CONFIG.model_copy(update={"order": order})).eval()
        x = model.embed(ids) + sinusoids(positions, 16)
        for layer in model.layers:
            if order == "literal":
                x = layer.norm(layer.feed_forward(layer.attention(x, lambda y: y, Causal())))
            else:
                x = layer.attention_norm(x + layer.attention(x, lambda y: y, Causal()))
                x = layer.ffn_norm(x + layer.feed_forward(x))
        slow = (x @ model.tok_embeddings.weight.T).softmax(-1)
        assert torch.allclose(model(ids).softmax(-1), slow, atol=1e-6)


def test_rms_norm_and_llamas_order():
    llama = Llama(LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=24, vocab_size=30))
    norm, x = RMSNorm(16, 1e-5), torch.randn(1, 3, 16)
    assert torch.allclose(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    rope, block = llama.rope(torch.arange(3), torch.float32), llama.layers[0]
    y = x + block.attention(block.attention_norm(x), rope, Causal())
    assert torch.allclose(block(x, rope, Causal()), y + block.feed_forward(block.ffn_norm(y)))
