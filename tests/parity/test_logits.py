"""Every family against transformers in float32: whole texts, through caches, in padded batches, past the context."""

import pytest
import torch
from parity.families import FAMILIES, SCALINGS, TRUE_CONFIGS
from parity.pairs import TEXT, assert_same, pair, random_ids
from transformers import AutoConfig, DynamicCache

from ayllu.checkpoint.hf_config import config_from_hf
from ayllu.model.attend import padded
from ayllu.model.cache import DenseCache, left_padded

ALL = [*FAMILIES, *SCALINGS]
LENGTHS = (TEXT, 5, 23)                                  # of the rows of a padded batch


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", TRUE_CONFIGS)
def test_the_published_config_is_read_as_transformers_reads_it(name):
    raw = TRUE_CONFIGS[name]
    table = {k: v for k, v in raw.items() if k != "model_type"}
    read = AutoConfig.for_model(raw["model_type"], **table).to_dict()
    assert config_from_hf(raw) == config_from_hf(read)


@pytest.mark.parametrize("name", ALL)
def test_whole_text(name):
    both, ids = fresh(name), random_ids(2, TEXT)
    assert_same(both.ours(ids), both.theirs(ids).logits)


@pytest.mark.parametrize("name", ALL)
def test_through_a_cache(name):
    """A prompt, a few tokens at once, then one by one, well past windows and original contexts."""
    both, ids = fresh(name), random_ids(2, TEXT)
    ours = cached_logits(both.ours, ids, [0, 0], (11, 4, *[1] * (TEXT - 15)))
    theirs, past = [], DynamicCache(config=both.theirs.config)
    for chunk in ids.split([11, 4, *[1] * (TEXT - 15)], dim=1):
        theirs.append(both.theirs(chunk, past_key_values=past).logits)
    assert_same(ours, torch.cat(theirs, dim=1))


@pytest.mark.parametrize("name", ALL)
def test_padded_batch(name):
    """Rows of different lengths, filled on the left: logits of the real tokens, with a mask and with a cache."""
    both, rows = fresh(name), [random_ids(1, n, seed=n)[0].tolist() for n in LENGTHS]
    ids, padding = left_padded(rows)
    is_token = torch.arange(TEXT) >= torch.tensor(padding)[:, None]
    positions = (is_token.cumsum(1) - 1).clamp(min=0)
    masks = [padded(is_token, both.ours.config.window(i)) for i in range(both.ours.config.n_layers)]
    masked = both.ours(ids, positions, masks)[is_token]
    if name.startswith(("dynamic", "longrope")):        # theirs turns all rows by the longest one's length: one by one
        theirs = torch.cat([fresh(name).theirs(torch.tensor([row])).logits[0] for row in rows])
    else:
        theirs = both.theirs(ids, attention_mask=is_token.long(), position_ids=positions).logits[is_token]
    assert_same(masked, theirs)
    assert_same(cached_logits(both.ours, ids, padding, (TEXT,))[is_token], theirs)


@pytest.mark.parametrize("name", ["llama-2-70b", "mistral-7b-v0.1", "qwen2-7b-sliding", "llama-3.2-1b", "yarn"])
def test_padded_batch_continued_token_by_token(name):
    both, ids, padding = fresh(name), random_ids(3, TEXT), [0, 9, 4]
    is_token = torch.arange(TEXT) >= torch.tensor(padding)[:, None]
    positions = (is_token.cumsum(1) - 1).clamp(min=0)
    theirs = both.theirs(ids, attention_mask=is_token.long(), position_ids=positions).logits[is_token]
    ours = cached_logits(both.ours, ids, padding, (12, *[1] * (TEXT - 12)))
    assert_same(ours[is_token], theirs)


def test_dynamic_rotation_of_a_row_does_not_depend_on_its_neighbours():
    both, short, long = fresh("dynamic"), random_ids(1, 12), random_ids(1, TEXT)
    ids, padding = left_padded([short[0].tolist(), long[0].tolist()])
    batch = cached_logits(both.ours, ids, padding, (TEXT,))
    assert_same(batch[0, -12:], both.ours(short)[0])
    assert_same(batch[1], both.ours(long)[0])


def test_dynamic_rotation_with_a_cache_differs_from_the_whole_text_in_both():
    """Keys stay turned as they were when written: transformers computes in this mode, too; it is no fault."""
    both, ids = fresh("dynamic"), random_ids(1, TEXT)
    whole = both.ours(ids)
    stepwise = cached_logits(both.ours, ids, [0], (8, *[1] * (TEXT - 8)))
    assert (whole[:, -1] - stepwise[:, -1]).abs().max() > 0.1 * whole.std()
    assert_same(stepwise[:, :16], fresh("dynamic").theirs(ids[:, :16]).logits)


@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3.1-8b", "mistral-7b-v0.1", "qwen2-0.5b"])
def test_bfloat16_is_as_near_to_float32_as_transformers_is(name):
    both, ids = fresh(name), random_ids(4, TEXT)
    exact = both.theirs(ids).logits
    try:
        theirs = (both.theirs.bfloat16()(ids).logits.float() - exact).square().mean().sqrt()
        ours = (both.ours.bfloat16()(ids).float() - exact).square().mean().sqrt()
    finally:
        pair.cache_clear()                               # the models have lost their low bits
    assert ours < 1.2 * theirs < 0.3 * exact.std()


def fresh(name):
    """The pair, with transformers' dynamic rotation back at its start: it remembers the longest text so far."""
    both = pair(name)
    if name.startswith("dynamic"):
        pair.cache_clear()
        both = pair(name)
    return both


def cached_logits(model, ids, padding, chunks):
    """Logits (B, T, V) of a text that goes through a dense cache in chunks."""
    cache = DenseCache(model.config, padding, 16, dtype=torch.float32, device=torch.device("cpu"))
    out = []
    for chunk in ids.split(list(chunks), dim=1):
        positions = cache.extend(chunk.shape[1])
        out.append(model(chunk, positions, cache.attends))
    return torch.cat(out, dim=1)
