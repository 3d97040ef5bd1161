"""The drop-in names beside transformers' own, on the same tiny checkpoint."""

import pytest
import torch
import transformers

from ayllu import LlamaForCausalLM, LlamaTokenizer
from ayllu.errors import ConfigError, ContextTooLong, RequestError


@pytest.fixture(scope="module")
def ours(tiny_checkpoint):
    return LlamaForCausalLM.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint):
    return transformers.LlamaForCausalLM.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return LlamaTokenizer.from_pretrained(str(tiny_checkpoint))


def test_the_script_that_everybody_writes(tiny_checkpoint, caplog):
    """Word for word, but for the import line and the name of the checkpoint."""
    model_name = str(tiny_checkpoint)
    tokenizer = LlamaTokenizer.from_pretrained(model_name)
    model = LlamaForCausalLM.from_pretrained(model_name)
    input_text = "我喜欢阅读和编程,"
    input_ids = tokenizer.encode(input_text, return_tensors="pt")
    output = model.generate(input_ids, max_length=50, num_return_sequences=5)
    texts = [tokenizer.decode(o, skip_special_tokens=True) for o in output]
    assert output.shape[0] == 5
    assert output.shape[1] <= 50
    assert all(text.startswith(input_text) for text in texts)
    assert len(set(texts)) == 5
    assert "the 5 texts are sampled" in caplog.text


def test_greedy_equals_transformers(ours, theirs, tokenizer):
    batch = tokenizer(["The fox", "Once upon a time there was"], return_tensors="pt", padding=True)
    got = ours.generate(**batch, max_new_tokens=60, pad_token_id=0)
    expected = theirs.generate(**batch, max_new_tokens=60, do_sample=False, pad_token_id=0)
    assert got.tolist() == expected.tolist()


def test_beams_equal_transformers(ours, theirs, tokenizer):
    ids = tokenizer.encode("The fox", return_tensors="pt")
    settings = {"num_beams": 4, "num_return_sequences": 3, "max_length": 30, "pad_token_id": 0, "length_penalty": 0.5,
                "early_stopping": True}
    assert ours.generate(ids, **settings).tolist() == theirs.generate(ids, do_sample=False, **settings).tolist()


def test_repetition_penalty_equals_transformers(ours, theirs, tokenizer):
    ids = tokenizer.encode("The fox", return_tensors="pt")
    settings = {"max_new_tokens": 40, "repetition_penalty": 1.5, "pad_token_id": 0}
    assert ours.generate(ids, **settings).tolist() == theirs.generate(ids, do_sample=False, **settings).tolist()


def test_logits_and_loss_equal_transformers(ours, theirs):
    ids = torch.randint(3, 300, (2, 12))
    labels = ids.clone()
    labels[0, :5] = -100
    got, expected = ours(ids, labels=labels), theirs(ids, labels=labels)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(got.loss, expected.loss)
    assert got[0] is got.loss
    assert ours(ids)[0].shape == (2, 12, ours.config.vocab_size)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_under_padding_equal_each_row_alone(ours, tokenizer, side):
    batch = tokenizer(["fox", "Once upon a time"], return_tensors="pt", padding=True, padding_side=side)
    logits = ours(**batch).logits
    for row, text in enumerate(["fox", "Once upon a time"]):
        alone = ours(tokenizer.encode(text, return_tensors="pt")).logits[0]
        torch.testing.assert_close(logits[row][batch.attention_mask[row].bool()], alone, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_answer(ours, tokenizer, side):
    texts = ["fox", "Once upon a time there was a small fox"]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
    got = ours.generate(**batch, max_new_tokens=12)
    for row, text in zip(got, texts, strict=True):
        alone = ours.generate(tokenizer.encode(text, return_tensors="pt"), max_new_tokens=12)[0]
        assert tokenizer.decode(row, skip_special_tokens=True) == tokenizer.decode(alone, skip_special_tokens=True)
    assert (got[:, :batch.input_ids.shape[1]] == batch.input_ids).all()


def test_padding_without_a_mask_is_seen_where_the_padding_id_is_known(ours, tokenizer):
    batch = tokenizer(["fox", "Once upon a time there"], return_tensors="pt", padding=True)
    fill = batch.input_ids[0, 0].item()
    with_mask = ours.generate(**batch, max_new_tokens=8, eos_token_id=-1, pad_token_id=fill)
    without = ours.generate(batch.input_ids, max_new_tokens=8, eos_token_id=-1, pad_token_id=fill)
    assert with_mask.tolist() == without.tolist()


def test_shorter_answers_are_filled_with_the_padding_id(ours, tokenizer):
    ids = tokenizer.encode("The fox", return_tensors="pt")
    n = ids.shape[1]
    free = ours.generate(ids, max_new_tokens=20, eos_token_id=-1)[0].tolist()
    end = free[n + 4]
    got = ours.generate(torch.cat((ids, ids + 1)), max_new_tokens=20, eos_token_id=end, pad_token_id=7).tolist()
    cut = free.index(end, n)
    assert got[0] == free[:cut + 1] + [7] * (len(got[1]) - cut - 1)
    assert len(free) == n + 20                           # -1 switches stopping off


def test_torch_seeds_and_own_seeds_repeat_samples(ours, tokenizer):
    ids = tokenizer.encode("The fox", return_tensors="pt")

    def sample(**settings):
        return ours.generate(ids, do_sample=True, max_new_tokens=20, num_return_sequences=2, **settings).tolist()

    torch.manual_seed(3)
    first, second = sample(), sample()
    torch.manual_seed(3)
    assert sample() == first != second
    assert sample(seed=5) == sample(seed=5) != sample(seed=6)
    twice = ours.generate(torch.cat((ids, ids)), do_sample=True, max_new_tokens=20, seed=1)
    assert twice[0].tolist() != twice[1].tolist()


def test_top_k_is_50_where_nobody_says(ours, tokenizer):
    ids = tokenizer.encode("The fox", return_tensors="pt")
    allowed = set(ours(ids).logits[0, -1].topk(50).indices.tolist())
    rows = ours.generate(ids, do_sample=True, temperature=50.0, max_new_tokens=1, num_return_sequences=300, seed=0)
    assert set(rows[:, -1].tolist()) <= allowed
    wide = ours.generate(ids, do_sample=True, temperature=50.0, top_k=0, max_new_tokens=1, num_return_sequences=300)
    assert not set(wide[:, -1].tolist()) <= allowed


def test_a_streamer_gets_what_transformers_would_give(ours, theirs, tokenizer):
    class Recorder:
        def __init__(self):
            self.got, self.is_ended = [], False

        def put(self, value):
            self.got.append(value.flatten().tolist())

        def end(self):
            self.is_ended = True

    ids = tokenizer.encode("The fox", return_tensors="pt")
    records = []
    for model in (ours, theirs):
        records.append(Recorder())
        model.generate(ids, max_new_tokens=10, streamer=records[-1], pad_token_id=0, do_sample=False)
    assert records[0].is_ended
    assert records[0].got == records[1].got
    with pytest.raises(ConfigError, match="one sequence"):
        ours.generate(ids, streamer=Recorder(), num_return_sequences=2, max_new_tokens=3)


def test_generation_config_of_the_model_counts(tiny_checkpoint, tokenizer):
    model = LlamaForCausalLM.from_pretrained(tiny_checkpoint)
    ids = tokenizer.encode("The fox", return_tensors="pt")
    assert model.generate(ids).shape[1] <= ids.shape[1] + 20
    model.generation_config.max_new_tokens = 3
    model.generation_config.eos_token_id = None
    assert model.generate(ids).shape[1] == ids.shape[1] + 3
    assert model.generate(ids, max_length=30).shape[1] == 30


def test_config_by_the_names_of_transformers(ours, theirs):
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "eos_token_id", "bos_token_id",
                 "max_position_embeddings"):
        assert getattr(ours.config, name) == getattr(theirs.config, name)
    assert ours.num_parameters() == theirs.num_parameters()
    assert (ours.dtype, ours.device.type) == (torch.float32, "cpu")


def test_dtype_and_moving(tiny_checkpoint, tokenizer):
    model = LlamaForCausalLM.from_pretrained(tiny_checkpoint, torch_dtype=torch.bfloat16, device_map="cpu").eval()
    assert model.dtype == torch.bfloat16
    assert model.to(torch.float32).dtype == torch.float32
    assert not model.training
    assert model.generate(tokenizer.encode("a", return_tensors="pt"), max_new_tokens=2).shape[0] == 1


def test_save_pretrained_loads_in_transformers_and_here(ours, tokenizer, tmp_path):
    ours.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = tokenizer.encode("The fox", return_tensors="pt")
    for kind in (LlamaForCausalLM, transformers.LlamaForCausalLM):
        torch.testing.assert_close(kind.from_pretrained(tmp_path)(ids).logits, ours(ids).logits, atol=1e-3, rtol=1e-4)
    assert LlamaTokenizer.from_pretrained(tmp_path).encode("The fox") == tokenizer.encode("The fox")


@pytest.mark.parametrize(("settings", "error", "words"), [
    ({"max_lenght": 5}, ConfigError, "did you mean 'max_length'"),
    ({"max_length": 2}, RequestError, "has 4 tokens, so max_length=2"),
    ({"max_length": 500}, ContextTooLong, "max_length=500.*128"),
    ({"num_return_sequences": 3, "do_sample": False, "max_length": 9}, ConfigError, "one text 3 times"),
    ({"num_beams": 2, "do_sample": True, "max_length": 9}, ConfigError, "does not sample"),
    ({"do_sample": True, "top_p": 3.0, "max_length": 9}, ConfigError, "top_p"),
    ({"attention_mask": [[1, 0, 1, 1]], "max_length": 9}, RequestError, "gap"),
])
def test_what_cannot_be_is_told(ours, settings, error, words):
    with pytest.raises(error, match=words):
        ours.generate(torch.tensor([[1, 5, 6, 7]]), **settings)


def test_other_mistakes_are_told(ours, tiny_checkpoint):
    with pytest.raises(RequestError, match="needs input_ids"):
        ours.generate(max_length=5)
    with pytest.raises(RequestError, match="whole numbers"):
        ours.generate(torch.rand(1, 4), max_length=5)
    with pytest.raises(ConfigError, match="'torch_dtype'"):
        LlamaForCausalLM.from_pretrained(tiny_checkpoint, torch_dtyp="float32")
    with pytest.raises(ConfigError, match="never runs code"):
        LlamaForCausalLM.from_pretrained(tiny_checkpoint, trust_remote_code=True)
