"""Gated cross-attention, and the Llama that reads as the teacher of the one that hears."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from media_pairs import NAMES, model_of, recipe

from ayllu import LLM
from ayllu.data.media_loader import MediaLoader
from ayllu.errors import CheckpointError, ConfigError, DataError, RequestError
from ayllu.media.cross import memory_of
from ayllu.media.senses import read_senses, write_senses
from ayllu.media.splice import Place
from ayllu.train.align import align, prepared_media
from ayllu.train.align_config import Kl
from ayllu.train.align_loss import Aligned, align_loss, divergences

CROSS = {"every": 1, "n_heads": 2}


def opened(model: Aligned) -> Aligned:
    """Gates that let something through."""
    with torch.no_grad():
        for layer in model.senses.cross.layers.values():
            layer.attention_gate.fill_(0.7)
            layer.ffn_gate.fill_(-0.5)
    return model


@pytest.fixture
def crossing(folder, chat_checkpoint):
    _, lesson = prepared_media(recipe(folder, chat_checkpoint, learns="encoder", cross=CROSS), folder)
    return Aligned(model_of(chat_checkpoint), lesson.senses).eval(), MediaLoader(lesson.train, lesson.senses, 8)


@torch.no_grad()
def test_a_closed_gate_and_a_text_without_media_change_nothing(crossing):
    model, rows = crossing
    batch = rows.rows([0, 5])
    own = model.body.trunk(model.body.embed(batch.ids))
    assert torch.equal(model.hidden(batch), own)         # the gates are 0 at first
    opened(model)
    seen = model.hidden(batch)
    for i in range(2):
        start = batch.places[i][0].start
        assert torch.equal(seen[i, :start], own[i, :start])                   # nothing shown yet
        assert not torch.equal(seen[i, start:], own[i, start:])
    alone = replace(batch, places=((), batch.places[1]), media=((), batch.media[1]))
    mixed = model.hidden(alone)
    assert torch.equal(mixed[0], own[0])                 # nothing shown in its row, something in the other
    assert torch.equal(mixed[1], seen[1])
    nothing = replace(batch, places=((), ()), media=((), ()))
    assert torch.equal(model.hidden(nothing), own)


@torch.no_grad()
def test_of_several_media_the_last_is_seen(crossing):
    model, rows = crossing
    opened(model)
    two = rows.rows([0, 1])
    x = model.body.embed(two.ids[:1])
    first, second = (model.senses.features(list(media))[0] for media in two.media)
    T, cross = x.shape[1], model.senses.cross
    both = cross.trunk(model.body, x, memory_of([[Place(0, 1, 1), Place(1, 4, 1)]], [first, second], T))
    one = cross.trunk(model.body, x, memory_of([[Place(0, 1, 1)]], [first], T))
    torch.testing.assert_close(both[:, :4], one[:, :4], atol=1e-6, rtol=0)    # masked keys: another order of sums
    assert not torch.allclose(both[:, 4:], one[:, 4:], atol=1e-3)
    with pytest.raises(RequestError, match="one of each"):
        memory_of([[Place(0, 1, 1)]], [first, second], T)


def test_eight_pairs_are_learned_by_looking(folder, chat_checkpoint):
    config = recipe(folder, chat_checkpoint, learns="encoder", cross=CROSS,
                    loop={"steps": 120, "batch_size": 8, "micro_batch": 8, "eval_every": 120, "checkpoint_every": 120},
                    optim={"lr": 1e-2, "schedule": {"warmup_steps": 10}})
    config, lesson = prepared_media(config, folder)
    assert all(place.length == 1 for sample in lesson.train for place in sample.places)
    found = align(config, lesson, folder)
    assert found["answers_right"] == 1                   # and the Llama's own weights are as they were
    with pytest.raises(CheckpointError, match=r"without \[cross\]"):
        LLM.load(chat_checkpoint, device="cpu", senses=found["senses"])
    model = Aligned(model_of(chat_checkpoint), read_senses(found["senses"]))
    batch = MediaLoader(lesson.train, model.senses, 8).rows(range(8))
    learned = batch.weights > 0
    with torch.no_grad():
        logits = model.body.logits(model.hidden(batch))
    assert torch.equal(logits.argmax(-1)[learned], batch.labels[learned])


def test_who_does_not_compute_them_says_so(crossing, chat_checkpoint, tmp_path):
    model, _ = crossing
    write_senses(tmp_path / "s", model.senses)
    for senses in (tmp_path / "s", model.senses):        # the server's are opened by the same Perception
        with pytest.raises(CheckpointError, match=r"gated cross-attention.*take some without"):
            LLM.load(chat_checkpoint, device="cpu", senses=senses)


def transcribed(folder) -> None:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows = [{**row, "transcript": f"it is the {name}"} for row, name in zip(rows, NAMES, strict=True)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_divergence_is_from_the_llama_that_reads(folder, chat_checkpoint):
    transcribed(folder)
    _, lesson = prepared_media(recipe(folder, chat_checkpoint, learns="encoder", kl={}), folder)
    model = Aligned(model_of(chat_checkpoint), lesson.senses).eval()
    batch = MediaLoader(lesson.train, lesson.senses, 8).rows([0, 6])
    read = lesson.tokenizer.decode(batch.text.ids[0].tolist(), skip_special=True)
    assert "it is the red sun" in read
    hidden = model.hidden(batch)
    found, expected = divergences(model.body, hidden, batch, 2.0), []
    for i in range(2):                                   # the slow twin: place by place, by torch's own divergence
        hears = model.body.logits(hidden[i])[batch.weights[i] > 0]
        reads = model.body(batch.text.ids[i:i + 1])[0][batch.text.weights[i] > 0]
        expected.append(4 * F.kl_div(F.log_softmax(hears / 2, -1), F.softmax(reads / 2, -1), reduction="sum"))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    half, written = (align_loss(model, batch, kl).total for kl in (Kl(weight=0.5), None))
    torch.testing.assert_close(half, (found.sum() + written) / 2)
    hears_what_it_reads = model.body.trunk(model.body.embed(batch.text.ids))
    same = replace(batch, weights=batch.text.weights)
    assert divergences(model.body, hears_what_it_reads, same, 2.0).abs().max() < 1e-6


def test_hearing_becomes_like_reading(folder, chat_checkpoint):
    transcribed(folder)
    config = recipe(folder, chat_checkpoint, learns="encoder", kl={"weight": 1.0},
                    loop={"steps": 30, "batch_size": 8, "micro_batch": 4, "eval_every": 30, "checkpoint_every": 30})
    config, lesson = prepared_media(config, folder)
    model = Aligned(model_of(chat_checkpoint), lesson.senses)
    batch = MediaLoader(lesson.train, lesson.senses, 8).rows(range(8))
    with torch.no_grad():
        before = float(divergences(model.body, model.hidden(batch), batch, 2.0).sum())
    found = align(config, lesson, folder)
    model = Aligned(model_of(chat_checkpoint), read_senses(found["senses"]))
    with torch.no_grad():
        after = float(divergences(model.body, model.hidden(batch), batch, 2.0).sum())
    assert after < before / 2


def test_what_does_not_fit_is_refused(folder, chat_checkpoint):
    with pytest.raises(ConfigError, match="its own teacher"):
        recipe(folder, chat_checkpoint, learns="all", kl={})
    with pytest.raises(DataError, match="no transcript"):
        prepared_media(recipe(folder, chat_checkpoint, learns="encoder", kl={}), folder)
    with pytest.raises(ConfigError, match="is said in their folder"):
        recipe(folder, chat_checkpoint, senses="x", eye=None, ear=None, cross=CROSS)
    (folder / "rows.jsonl").write_text(json.dumps({"image": "0.png", "text": "a", "transcripts": ["b", "c"]}) + "\n")
    with pytest.raises(DataError, match="a list of 1 texts"):
        prepared_media(recipe(folder, chat_checkpoint), folder)
