"""What the drop-in names can't honour is an error that says so, never a silence and never an accident of torch."""

import pytest
import torch

from ayllu import LLM, LlamaForCausalLM, LlamaTokenizer
from ayllu.errors import AylluError, CheckpointError, ConfigError, RequestError

ONE = "{{ messages[0].content }}"


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return LlamaForCausalLM.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return LlamaTokenizer.from_pretrained(tiny_checkpoint)


@pytest.mark.parametrize("prompt", ["hello", torch.zeros(1, 0, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool),
                                    torch.ones(1, 1, 3, dtype=torch.long), [[1, 2], [3]], None],
                         ids=["text", "empty", "bool", "three axes", "ragged", "none"])
def test_prompts_that_are_no_ids(model, prompt):
    with pytest.raises(RequestError):
        model.generate(prompt, max_new_tokens=2)


@pytest.mark.parametrize(("setting", "named"), [
    ({"attention_mask": torch.ones(1, 2)}, "attention_mask"), ({"num_return_sequences": 0}, "num_return_sequences"),
    ({"num_beams": 0}, "num_beams"), ({"eos_token_id": 10**6}, "eos_token_id"),
    ({"pad_token_id": 10**6}, "pad_token_id"),
    ({"max_new_tokens": True}, "max_new_tokens"), ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"stopping_criteria": [len]}, "stopping_criteria"), ({"return_dict_in_generate": True}, "return_dict_in_generate"),
    ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size"), ({"min_new_tokens": 2}, "min_new_tokens")])
def test_settings_that_can_not_be_honoured(model, setting, named):
    with pytest.raises(AylluError, match=named):
        model.generate(torch.tensor([[1, 5, 9]]), **{"max_new_tokens": 3, **setting})


def test_what_only_beams_use_is_told(model, caplog):
    model.generate(torch.tensor([[1, 5]]), max_new_tokens=2, length_penalty=2.0, early_stopping=True)
    assert "length_penalty, early_stopping changes nothing without num_beams" in caplog.text


def test_what_a_generation_config_asks_and_nobody_does_is_told(tiny_checkpoint, caplog):
    model = LlamaForCausalLM.from_pretrained(tiny_checkpoint)
    model.generation_config.no_repeat_ngram_size = 3
    model.generation_config.min_length = 0               # says nothing
    model.generate(torch.tensor([[1, 5]]), max_new_tokens=2)
    assert "no_repeat_ngram_size=3" in caplog.text
    assert "min_length" not in caplog.text


def test_several_reasons_read_as_sentences(model):
    with pytest.raises(ConfigError) as error:
        model.generate(torch.tensor([[1, 5]]), max_new_tokens=2, num_beams=2, num_return_sequences=3)
    assert "raise num_beams" in str(error.value)
    assert "Value error" not in str(error.value)
    assert "found {" not in str(error.value)


def test_names_and_dtypes_of_from_pretrained(tiny_checkpoint):
    with pytest.raises(ConfigError, match="float"):
        LlamaForCausalLM.from_pretrained(tiny_checkpoint, torch_dtype=torch.int8)
    for name in ("", None):
        with pytest.raises(CheckpointError, match="name"):
            LlamaForCausalLM.from_pretrained(name)
    with pytest.raises(ConfigError, match="trust_remote_code"):
        LlamaTokenizer.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    with pytest.raises(ConfigError, match="padding_side"):
        LlamaTokenizer.from_pretrained(tiny_checkpoint, padding_side="middle")


@pytest.mark.parametrize("text", [None, 5, [None], {"a": 1}])
def test_texts_that_are_none(tokenizer, text):
    with pytest.raises(RequestError, match="string"):
        tokenizer(text)


@pytest.mark.parametrize("ids", ["abc", [["a"]], None, [1.5]])
def test_ids_that_are_none(tokenizer, ids):
    with pytest.raises(RequestError, match="ids"):
        tokenizer.decode(ids)


def test_a_length_without_truncation_cuts_and_says_so_as_in_transformers(tokenizer, caplog):
    whole = tokenizer.encode("Once upon a time")
    assert tokenizer.encode("Once upon a time", max_length=3) == whole[:3]
    assert "truncation=True" in caplog.text
    assert tokenizer.encode("Once upon a time", max_length=3, truncation=False) == whole


def test_the_model_max_length_that_was_given_is_where_truncation_cuts(tiny_checkpoint):
    short = LlamaTokenizer.from_pretrained(tiny_checkpoint, model_max_length=4)
    assert len(short.encode("Once upon a time there was", truncation=True)) == 4


def test_truncation_keeps_the_end_id_that_was_asked_for(tiny_checkpoint):
    ending = LlamaTokenizer.from_pretrained(tiny_checkpoint, add_eos_token=True)
    ids = ending.encode("Once upon a time there was", truncation=True, max_length=4)
    assert (len(ids), ids[0], ids[-1]) == (4, ending.bos_token_id, ending.eos_token_id)


def test_conversations(tokenizer):
    said = [{"role": "user", "content": "fox"}]
    one = tokenizer.apply_chat_template(said, chat_template=ONE)
    assert tokenizer.apply_chat_template([said, said], chat_template=ONE) == [one, one]
    with pytest.raises(ConfigError, match="return_tensors"):
        tokenizer.apply_chat_template(said, chat_template=ONE, return_tensors="np")
    with pytest.raises(RequestError, match="message"):
        tokenizer.apply_chat_template(["fox"], chat_template=ONE)
    with pytest.raises(ConfigError, match="continue_final_message"):
        tokenizer.apply_chat_template(said, chat_template=ONE, continue_final_message=True)


def test_what_beams_do_not_use_is_told(tiny_checkpoint, caplog):
    LLM.load(tiny_checkpoint).generate("The fox", num_beams=2, max_tokens=2, seed=1, temperature=0.5)
    assert "seed, temperature changes nothing with beam search" in caplog.text
