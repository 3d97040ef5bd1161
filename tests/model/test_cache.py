"""The dense cache against the model without one: padding, windows, growth, chunks, and rows that move."""

import pytest
import torch

from ayllu.model.attend import padded
from ayllu.model.cache import DenseCache, left_padded
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.model.llama import Llama

SHAPE = {"dim": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 64, "vocab_size": 101,
         "max_context": 256}


def small_model(seed=0, **fields):
    config = LlamaConfig(**{**SHAPE, **fields})
    model = Llama(config).eval()
    initialise(model, config.n_layers, seed)
    with torch.no_grad():                                # default weights are so tame that faults would hide
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(12 if name == "output.weight" else 6)
    return model


def prompts_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 101, (n,), generator=generator).tolist() for n in lengths]


def new_cache(model, padding, capacity=64):
    return DenseCache(model.config, padding, capacity, dtype=torch.float32, device=torch.device("cpu"))


@torch.inference_mode()
def run(model, cache, ids):
    positions = cache.extend(ids.shape[1])
    return model.logits(model.trunk(model.embed(ids), positions, cache.attends))


@pytest.mark.parametrize("fields", [{}, {"n_kv_heads": 1}, {"n_kv_heads": 4}, {"sliding_window": 7},
                                    {"sliding_window": 7, "first_sliding_layer": 2}])
@torch.inference_mode()
def test_token_by_token_equals_the_whole(fields):
    model = small_model(**fields)
    ids = torch.tensor(prompts_of(40))
    whole = model(ids)
    assert whole.std() >= 1
    cache = new_cache(model, [0])
    parts = [run(model, cache, part) for part in ids.split([11, 1, 1, 9, 1, 17], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 5])
@torch.inference_mode()
def test_rows_of_different_lengths_equal_each_alone(window):
    model = small_model(sliding_window=window)
    prompts = prompts_of(3, 20, 11)
    ids, padding = left_padded(prompts)
    cache = new_cache(model, padding)
    first = run(model, cache, ids)[:, -1]
    then = torch.tensor([[5], [6], [7]])
    second = run(model, cache, then)[:, -1]
    more = run(model, cache, torch.tensor([[1, 2], [3, 4], [8, 9]]))[:, -1]
    for row, prompt in enumerate(prompts):
        text = [*prompt, *then[row].tolist(), *[[1, 2], [3, 4], [8, 9]][row]]
        alone = model(torch.tensor([text]))[0]
        torch.testing.assert_close(first[row], alone[len(prompt) - 1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(second[row], alone[len(prompt)], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(more[row], alone[-1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_left_padding_equals_the_padded_mask():
    """The same batch by the model's own mask for padding, which the cache doesn't use."""
    model = small_model()
    prompts = prompts_of(4, 9)
    ids, padding = left_padded(prompts)
    slots = torch.arange(9)
    is_token = slots >= torch.tensor(padding)[:, None]
    positions = (slots - torch.tensor(padding)[:, None]).clamp(min=0)
    expected = model(ids, positions, [padded(is_token)] * 3)
    torch.testing.assert_close(run(model, new_cache(model, padding), ids)[:, -1], expected[:, -1], atol=1e-4, rtol=1e-4)


def test_the_buffer_grows_and_keeps_what_it_has():
    model = small_model()
    ids = torch.tensor(prompts_of(200))
    cache = new_cache(model, [0], capacity=1)
    assert cache.capacity == 64
    parts = [run(model, cache, part) for part in ids.split(30, dim=1)]
    assert cache.capacity == 256
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [[1, 0, 2], [2, 2, 0], [1], [0, 0, 1, 1, 2, 2], [2, 1]])
def test_rows_move_copy_and_leave(rows):
    model = small_model()
    prompts = prompts_of(6, 13, 9)
    ids, padding = left_padded(prompts)
    cache = new_cache(model, padding)
    run(model, cache, ids)
    cache.select(rows)
    assert cache.n_rows == len(rows)
    after = run(model, cache, torch.full((len(rows), 1), 50))[:, -1]
    for place, row in enumerate(rows):
        with torch.inference_mode():
            alone = model(torch.tensor([[*prompts[row], 50]]))[0, -1]
        torch.testing.assert_close(after[place], alone, atol=1e-4, rtol=1e-4)


def test_truncate_takes_back_tokens():
    model = small_model()
    cache = new_cache(model, [0])
    ids = torch.tensor(prompts_of(12))
    run(model, cache, ids)
    cache.truncate(8)
    with torch.inference_mode():
        torch.testing.assert_close(run(model, cache, ids[:, 8:]), model(ids)[:, 8:], atol=1e-4, rtol=1e-4)


def test_layout_is_one_contiguous_buffer():
    cache = new_cache(small_model(), [0, 3], capacity=100)
    assert cache.buffer.shape == (3, 2, 2, 2, 100, 8)    # L, key and value, B, K, S, E
    assert cache.buffer.is_contiguous()
    assert cache.nbytes == 3 * 2 * 2 * 2 * 100 * 8 * 4
