"""`LlamaTokenizer` beside transformers' reading of the same SentencePiece file."""

import pytest
import sentencepiece
import torch

from ayllu import LlamaTokenizer
from ayllu.errors import ConfigError, ContextTooLong, RequestError

TEXTS = ["The fox", "我喜欢阅读和编程", "once\n upon  a time 123 ✨"]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return LlamaTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def pieces(tiny_checkpoint):
    return sentencepiece.SentencePieceProcessor(model_file=str(tiny_checkpoint / "tokenizer.model"))


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_sentencepiece_after_bos(tokenizer, pieces, text):
    assert tokenizer.encode(text) == [1, *pieces.encode(text)]
    assert tokenizer.encode(text, add_special_tokens=False) == pieces.encode(text)
    assert tokenizer.tokenize(text) == pieces.encode(text, out_type=str)
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert tokenizer.decode(tokenizer.encode(text)).startswith("<s>")
    assert torch.equal(tokenizer.encode(text, return_tensors="pt"), torch.tensor([tokenizer.encode(text)]))


def test_calls_give_ids_and_masks(tokenizer):
    one = tokenizer("The fox")
    assert one.input_ids == one["input_ids"] == tokenizer.encode("The fox")
    assert one.attention_mask == [1] * len(one.input_ids)
    many = tokenizer(TEXTS)
    assert many["input_ids"] == [tokenizer.encode(text) for text in TEXTS]
    assert set(tokenizer("a", return_attention_mask=False)) == {"input_ids"}
    with pytest.raises(AttributeError, match="there are: input_ids"):
        one.token_type_ids  # noqa: B018


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(tokenizer, side):
    batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    assert batch.input_ids.shape == batch.attention_mask.shape
    for row, mask, text in zip(batch.input_ids, batch.attention_mask, TEXTS, strict=True):
        assert row[mask.bool()].tolist() == tokenizer.encode(text)
        assert mask.tolist() == sorted(mask.tolist(), reverse=side == "right")
    assert batch.to("cpu").input_ids.device.type == "cpu"
    assert tokenizer(TEXTS[:1], padding="max_length", max_length=20, return_tensors="pt").input_ids.shape == (1, 20)
    assert tokenizer(TEXTS, padding=True, pad_to_multiple_of=16, return_tensors="pt").input_ids.shape[1] % 16 == 0


def test_truncation_only_where_asked(tokenizer):
    assert tokenizer.encode(TEXTS[1], truncation=True, max_length=3) == tokenizer.encode(TEXTS[1])[:3]
    with pytest.raises(ContextTooLong, match="max_length=3"):
        tokenizer(TEXTS, padding="max_length", max_length=3)
    with pytest.raises(ConfigError, match="how many tokens to keep"):
        tokenizer("a", truncation=True)


def test_typed_markup_is_text_unless_asked_for(tokenizer):
    assert 2 not in tokenizer.encode("</s>")
    assert tokenizer.encode("</s>", split_special_tokens=False) == [1, 2]


def test_special_tokens_by_name(tokenizer, tiny_checkpoint):
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert tokenizer.pad_token is None
    other = LlamaTokenizer.from_pretrained(tiny_checkpoint, padding_side="right")
    other.pad_token = other.eos_token
    assert other.pad_token_id == 2
    batch = other(["a", "The fox"], padding=True)
    assert batch.input_ids[0][-1] == 2
    with pytest.raises(ConfigError, match="not in the vocabulary"):
        other.pad_token = "<nothing>"
    assert len(tokenizer) == tokenizer.vocab_size == len(tokenizer.get_vocab())
    assert tokenizer.convert_tokens_to_ids(["<s>", "no such piece"]) == [1, 0]
    assert tokenizer.convert_ids_to_tokens(torch.tensor([1, 2])) == ["<s>", "</s>"]


def test_decode_takes_what_scripts_give(tokenizer):
    rows = torch.tensor([tokenizer.encode("The fox"), tokenizer.encode("The fox")])
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == ["The fox"] * 2
    assert tokenizer.decode(rows, skip_special_tokens=True) == ["The fox"] * 2
    assert tokenizer.decode(rows[0, 0]) == "<s>"


def test_chat_template(tokenizer, chat_checkpoint):
    chatty = LlamaTokenizer.from_pretrained(chat_checkpoint)
    messages = [{"role": "user", "content": "Hi"}]
    text = chatty.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<s>[user]Hi\n[assistant]"
    ids = chatty.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    assert ids[0, 0] == 1
    both = chatty.apply_chat_template(messages, return_dict=True)
    assert len(both.input_ids) == len(both.attention_mask)
    with pytest.raises(ConfigError, match="no chat template"):
        tokenizer.apply_chat_template(messages)


def test_mistakes_are_told(tokenizer, tiny_checkpoint):
    with pytest.raises(RequestError, match="padding=True"):
        tokenizer(TEXTS, return_tensors="pt")
    with pytest.raises(RequestError, match="should be a string, found int"):
        tokenizer([3])
    with pytest.raises(ConfigError, match="did you mean 'padding'"):
        tokenizer("a", paddin=True)
    with pytest.raises(ConfigError, match="return_tensors"):
        tokenizer("a", return_tensors="tf")
    with pytest.raises(ConfigError, match="'padding_side'"):
        LlamaTokenizer.from_pretrained(tiny_checkpoint, paddingside="left")
