"""Rows for new pieces: the model predicts a text nearly as well as before, and better than with random rows."""

import torch

from ayllu.checkpoint.extend import extended, rows
from ayllu.checkpoint.load import build_model, load_checkpoint, open_checkpoint
from ayllu.checkpoint.save import write_checkpoint
from ayllu.model.init import generator
from ayllu.text.extend import extend
from ayllu.train.losses import bits_per_byte

CPU = torch.device("cpu")
LEARNED = ("The dragonfly flew over the waterfall. The blacksmith repaired the lighthouse, and the lighthouse keeper "
           "thanked the blacksmith. A dragonfly sat on the lighthouse beside the waterfall.")
STORY = ("One evening the blacksmith walked home along the river. A dragonfly flew before him to the waterfall, where "
         "an old woman from the lighthouse was waiting. She asked him for help, as a storm had broken the door, and "
         "the keeper was ill.")


def bits(model, tokenizer, text):
    ids = torch.tensor(tokenizer.encode(text, bos=True))
    return bits_per_byte(model, ids, len(text.encode()), 256, CPU)


def test_new_rows_are_half_the_means_of_those_that_spelled_the_piece(tiny_checkpoint):
    source = open_checkpoint(tiny_checkpoint)
    found = extend(source.open_tokenizer(), ["κόσμος είναι κόσμος"] * 5, 12)
    old = source.tensor("tok_embeddings.weight")
    new = rows(old, found, found.tokenizer.vocab_size, "mean", generator(0, "x"))
    assert torch.equal(new[:len(old)], old)
    for id, parts in found.parts.items():
        torch.testing.assert_close(new[id], old[list(parts)].mean(0) / 2)


def test_a_model_goes_on_about_as_well_as_before(tmp_path):
    source = open_checkpoint("ayllu-mini")
    tokenizer = source.open_tokenizer()
    found = extend(tokenizer, [LEARNED] * 3, 30)
    assert len(found.tokenizer.encode(STORY)) < len(tokenizer.encode(STORY))
    before = bits(build_model(source, dtype=torch.float32), tokenizer, STORY)
    after = {}
    for first in ("mean", "random"):
        out = write_checkpoint(extended(source, found, first), tmp_path / first)
        made = load_checkpoint(out, dtype="float32")
        assert made.config.vocab_size == made.tokenizer.vocab_size == found.tokenizer.vocab_size
        after[first] = bits(made.model, made.tokenizer, STORY)
    assert after["mean"] < after["random"]
    assert after["mean"] < 1.05 * before
