"""The original Transformer: each formula, its numpy twin, torch's own layer, and all switches on = Llama."""

import itertools
import math

import pytest
import torch
from oracles import transformer_numpy
from torch import nn

from ayllu.model.attend import Causal, packed, padded
from ayllu.model.cache import DenseCache, left_padded
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.transformer import Attention, Block, ReluFeedForward, Transformer, sinusoids

SHAPE = {"dim": 24, "n_layers": 3, "n_heads": 4, "n_kv_heads": 4, "head_dim": 6, "hidden_dim": 40, "vocab_size": 61}
SWITCHES = {"norm_place": ("post", "pre"), "norm": ("layernorm", "rmsnorm"), "positions": ("sinusoidal", "rope"),
            "feed_forward": ("relu", "swiglu"), "n_kv_heads": (4, 2), "tie_embeddings": (True, False)}
COMBINATIONS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]
LITERAL = [{"order": "literal"}, {"order": "literal", "positions": "rope", "norm": "rmsnorm", "feed_forward": "swiglu",
                                  "n_kv_heads": 1}]
ALONE = [{}, {"norm_place": "pre"}, {"norm": "rmsnorm"}, {"positions": "rope"}, {"feed_forward": "swiglu"},
         {"n_kv_heads": 2}, {"order": "literal"}]


def label(fields):
    return ",".join(str(value) for value in fields.values()) or "paper"


def random_model(**fields):
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(**{**SHAPE, **fields})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() == 1:
                parameter.copy_(0.5 * noise + (0 if name.endswith("bias") else 1))
            else:
                parameter.copy_((0.5 if "tok_embeddings" in name else 1.5 / parameter.shape[1]**0.5) * noise)
    return model


def random_ids(rows, length, seed=0):
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fields", COMBINATIONS + LITERAL, ids=label)
def test_equals_the_numpy_twin(fields):
    model, ids = random_model(**fields), random_ids(1, 13)[0]
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    expected = torch.tensor(transformer_numpy.logits(model.config, weights, ids.tolist()))
    assert expected.std() >= 1
    with torch.inference_mode():
        found = model.double()(ids[None])[0]
    assert (found - expected).abs().max() < 2e-5 * expected.std()             # sines and rotations are float32


# ---- the formulas of the specification's section 4, one by one


def test_formula_embedding():
    """E[id] * sqrt(d), then the position is added."""
    model, ids = random_model(), random_ids(2, 5)
    torch.testing.assert_close(model.embed(ids), model.tok_embeddings.weight[ids] * math.sqrt(24))
    seen = []
    model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(ids)
    torch.testing.assert_close(seen[0], model.embed(ids) + sinusoids(torch.arange(5), 24))


def test_formula_positional_encoding():
    table = sinusoids(torch.arange(100), 24)
    for p, i in itertools.product(range(0, 100, 7), range(12)):
        assert table[p, 2 * i].item() == pytest.approx(math.sin(p / 10000 ** (2 * i / 24)), abs=1e-5)
        assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(p / 10000 ** (2 * i / 24)), abs=1e-5)


def test_formula_positions_turn_linearly():
    """The reason the paper gives: PE(p + k) is a rotation of PE(p) that depends on k only."""
    table, k = sinusoids(torch.arange(60), 8).double(), 9
    for i in range(4):
        angle = k / 10000 ** (2 * i / 8)
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]).double()
        pair = table[:, 2 * i:2 * i + 2]
        torch.testing.assert_close(pair[k:], pair[:-k] @ turn.T, atol=1e-5, rtol=0)


def test_formula_attention():
    """softmax(Q Kᵀ / sqrt(d_k)) V for each head with a causal mask, heads side by side, times W_O."""
    attention = Attention(TransformerConfig(**SHAPE))
    x = torch.randn(2, 7, 24)
    heads = []
    for h in range(4):
        q, k, v = (x @ m.weight[h * 6:h * 6 + 6].T for m in (attention.wq, attention.wk, attention.wv))
        scores = q @ k.transpose(1, 2) / math.sqrt(6)
        scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ v)
    expected = torch.cat(heads, dim=-1) @ attention.wo.weight.T
    torch.testing.assert_close(attention(x, lambda t: t, Causal()), expected)


def test_formula_feed_forward():
    """max(0, x W1 + b1) W2 + b2."""
    feed = ReluFeedForward(TransformerConfig(**SHAPE))
    x = torch.randn(2, 7, 24)
    hidden = (x @ feed.w1.weight.T + feed.w1.bias).clamp(min=0)
    assert (hidden == 0).any()
    torch.testing.assert_close(feed(x), hidden @ feed.w2.weight.T + feed.w2.bias)


@pytest.mark.parametrize("order", ["paper", "literal"])
def test_formula_whole_layer(order):
    model = random_model(order=order)
    block, x = model.layers[0], torch.randn(1, 5, 24)

    def attention(y):
        return block.attention(y, lambda t: t, Causal())

    if order == "literal":
        expected = block.norm(block.feed_forward(attention(x)))
    else:
        y = block.attention_norm(x + attention(x))
        expected = block.ffn_norm(y + block.feed_forward(y))
    torch.testing.assert_close(block(x, lambda t: t, Causal()), expected)


@pytest.mark.parametrize("norm_first", [False, True])
def test_block_equals_torch(norm_first):
    """torch.nn.TransformerEncoderLayer with a causal mask is this decoder's layer, once its attention biases are 0."""
    torch.manual_seed(1)
    theirs = nn.TransformerEncoderLayer(24, 4, 40, dropout=0.0, activation="relu", batch_first=True,
                                        norm_first=norm_first)
    block = Block(TransformerConfig(**SHAPE, norm_place="pre" if norm_first else "post", dropout=0.0))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.4 + (parameter.dim() == 1))
        theirs.self_attn.in_proj_bias.zero_()
        theirs.self_attn.out_proj.bias.zero_()
        q, k, v = theirs.self_attn.in_proj_weight.chunk(3)
        pairs = {block.attention.wq: q, block.attention.wk: k, block.attention.wv: v,
                 block.attention.wo: theirs.self_attn.out_proj.weight}
        for ours, weight in pairs.items():
            ours.weight.copy_(weight)
    for ours, part in ((block.feed_forward.w1, theirs.linear1), (block.feed_forward.w2, theirs.linear2),
                       (block.attention_norm, theirs.norm1), (block.ffn_norm, theirs.norm2)):
        ours.load_state_dict(part.state_dict())
    x = torch.randn(2, 9, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(9)
    expected = theirs(x, src_mask=mask, is_causal=True)
    assert expected.std() > 0.5
    torch.testing.assert_close(block(x, lambda t: t, Causal()), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_all_changes_together_are_llama(tied):
    model = random_model(norm_place="pre", norm="rmsnorm", positions="rope", feed_forward="swiglu", n_kv_heads=2,
                         tie_embeddings=tied)
    llama = Llama(LlamaConfig(**{**SHAPE, "n_kv_heads": 2}, tie_embeddings=tied)).eval()
    llama.load_state_dict(model.state_dict())            # the same names and shapes, nothing missing, nothing over
    ids = random_ids(2, 17)
    assert torch.equal(model(ids), llama(ids))


# ---- what the loop, the cache and the packing of documents rely on


@pytest.mark.parametrize("fields", ALONE, ids=label)
def test_the_future_changes_nothing(fields):
    model, ids = random_model(**fields), random_ids(1, 20)
    other = ids.clone()
    other[:, 12:] = (ids[:, 12:] + 1) % 61
    assert torch.equal(model(ids)[:, :12], model(other)[:, :12])
    assert not torch.allclose(model(ids)[:, 12:], model(other)[:, 12:])


@torch.inference_mode()
@pytest.mark.parametrize("fields", ALONE, ids=label)
def test_cache_padding_and_packing(fields):
    model, rows = random_model(**fields), [random_ids(1, n, seed=n)[0].tolist() for n in (15, 6)]
    alone = torch.cat([model(torch.tensor([row]))[0] for row in rows])
    ids, padding = left_padded(rows)
    is_token = torch.arange(15) >= torch.tensor(padding)[:, None]
    positions = (is_token.cumsum(1) - 1).clamp(min=0)
    close = {"atol": 3e-5, "rtol": 1e-4}
    torch.testing.assert_close(model(ids, positions, [padded(is_token)] * 3)[is_token], alone, **close)
    cache = DenseCache(model.config, padding, 16, dtype=torch.float32, device=torch.device("cpu"))
    steps = [model(part, cache.extend(part.shape[1]), cache.attends) for part in ids.split([10, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1)[is_token], alone, **close)
    document = torch.tensor([[0] * 15 + [1] * 6])
    restart = torch.tensor([[*range(15), *range(6)]])
    packed_ids = torch.tensor([rows[0] + rows[1]])
    torch.testing.assert_close(model(packed_ids, restart, [packed(document)] * 3)[0], alone, **close)


def test_dropout_falls_on_embeddings_and_parts_and_only_in_training():
    model, ids = random_model(dropout=0.5), random_ids(2, 8)
    assert torch.equal(model(ids), model(ids))
    assert not torch.equal(model.train()(ids), model(ids))
    places = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert len(places) == 4                              # the sum with positions, and one for each layer (both parts)
    assert all(place.p == 0.5 for place in places)


@pytest.mark.parametrize("fields", ALONE, ids=label)
def test_every_parameter_learns(fields):
    model, ids = random_model(**fields), random_ids(2, 12)
    model(ids).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
