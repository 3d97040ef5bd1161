"""Held-out bits over documents: each by itself, each id once, whatever its neighbours and their order."""

import math

import numpy as np
import pytest
import torch

from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.loader import Batch
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.documents import document_bits, rows, spelled_bytes
from ayllu.train.losses import IGNORED, bits_per_byte, next_token_loss

CPU = torch.device("cpu")
LENGTHS = (1, 2, 5, 16, 17, 18, 40, 41, 9, 3, 100)


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(dim=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, hidden_dim=48, vocab_size=64,
                         max_context=32)
    made = build_model(config)
    initialise(made, 2, 0)
    return made


@pytest.fixture(scope="module")
def documents():
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(3, 64, (n,), generator=draw) for n in LENGTHS]


def test_every_id_but_the_first_is_asked_for_once(documents):
    numbered = [1000 * d + torch.arange(len(ids)) for d, ids in enumerate(documents)]
    asked, given = [], 0
    for batch in rows(numbered, 16):
        known = batch.labels != IGNORED
        asked += batch.labels[known].tolist()
        given = max(given, batch.ids.shape[1])
        assert (batch.labels[known] == batch.ids[known] + 1).all()
    assert sorted(asked) == [1000 * d + i for d, n in enumerate(LENGTHS) for i in range(1, n)]
    assert given == 16


def test_short_documents_cost_what_each_costs_alone(model, documents):
    """Float32 sums in another order: 1e-5."""
    short = [ids for ids in documents if 2 <= len(ids) <= 17]
    alone = sum(next_token_loss(model, Batch(ids[None, :-1], ids[None, 1:])).total.item() for ids in short)
    assert document_bits(model, short, 16, CPU) == pytest.approx(alone / math.log(2), rel=1e-5)
    assert document_bits(model, short[::-1], 16, CPU) == pytest.approx(alone / math.log(2), rel=1e-5)


def test_one_long_document_is_read_as_running_text_is(model, documents):
    for ids in documents:
        if len(ids) > 1:
            assert document_bits(model, [ids], 16, CPU) == pytest.approx(bits_per_byte(model, ids, 1, 16, CPU),
                                                                         rel=1e-5)


def test_neighbours_change_nothing(model, documents):
    together = document_bits(model, documents, 16, CPU)
    assert together == pytest.approx(sum(document_bits(model, [ids], 16, CPU) for ids in documents), rel=1e-5)
    assert together != pytest.approx(bits_per_byte(model, torch.cat(documents), 1, 16, CPU), rel=1e-5)   # can fail


def test_the_bytes_of_a_part_are_its_own_and_no_share_of_the_whole():
    """Chinese has fewer bytes to a token than English here: half of the ids don't spell half of the bytes."""
    tokenizer = load_checkpoint("ayllu-mini").tokenizer
    texts = ["The king said to his daughter that she must not leave the castle.", "天地玄黄宇宙洪荒日月盈昃辰宿列张"]
    ids = [np.array(tokenizer.encode(text)) for text in texts]
    for text, part in zip(texts, ids, strict=True):
        assert spelled_bytes(tokenizer, part) == len(text.encode())
    whole = spelled_bytes(tokenizer, np.concatenate(ids))
    assert abs(whole - len("".join(texts).encode())) <= 1                     # the space between them
    assert abs(whole * len(ids[0]) / sum(map(len, ids)) - len(texts[0].encode())) > 3
