"""Keywords of transformers that Ayllu knows and does not do: neutral values pass, others say what to do."""

from types import SimpleNamespace

import pytest
import torch

from ayllu import LlamaForCausalLM
from ayllu.errors import ConfigError, RequestError

IDS = torch.tensor([[1, 5, 9]])


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return LlamaForCausalLM.from_pretrained(tiny_checkpoint)


def test_neutral_keywords_of_forward_change_nothing(model):
    plain = model(IDS).logits
    stated = model(IDS, use_cache=False, return_dict=True, output_hidden_states=False, output_attentions=None,
                   past_key_values=None, logits_to_keep=0).logits
    assert torch.equal(plain, stated)


@pytest.mark.parametrize(("setting", "named"), [
    ({"use_cache": True}, "use_cache.*generate"), ({"return_dict": False}, "return_dict"),
    ({"output_hidden_states": True}, "output_hidden_states.*trunk"), ({"logits_to_keep": False}, "logits_to_keep"),
    ({"output_hidden_state": False}, "did you mean 'output_hidden_states'")])
def test_what_forward_does_not_do_is_named(model, setting, named):
    with pytest.raises(ConfigError, match=named):
        model(IDS, **setting)


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_ids_outside_the_vocabulary(model, bad):
    with pytest.raises(RequestError, match=f"input_ids.*{bad}.*vocabulary"):
        model(torch.tensor([[1, bad]]))


def test_labels_outside_the_vocabulary(model):
    with pytest.raises(RequestError, match=r"labels.*vocabulary"):
        model(IDS, labels=torch.tensor([[1, 5, 10**6]]))
    assert model(IDS, labels=torch.tensor([[1, -100, 9]])).loss.isfinite()


def test_neutral_keywords_of_generate_change_nothing(model):
    plain = model.generate(IDS, max_new_tokens=4)
    stated = model.generate(IDS, max_new_tokens=4, stopping_criteria=None, logits_processor=[], stop_strings=None,
                            return_dict_in_generate=False, output_scores=False, generation_config=None)
    assert torch.equal(plain, stated)


@pytest.mark.parametrize(("setting", "named"), [
    ({"stop_strings": ["."]}, "stop_strings.*stop="), ({"return_dict_in_generate": True}, "return_dict_in_generate"),
    ({"generation_config": 5}, "generation_config"), ({"generation_config": {"num_beams": 0}}, "num_beams")])
def test_what_generate_does_not_do_is_named(model, setting, named):
    with pytest.raises(ConfigError, match=named):
        model.generate(IDS, max_new_tokens=2, **setting)


@pytest.mark.parametrize("kind", [dict, lambda **table: SimpleNamespace(**table)], ids=["table", "object"])
def test_a_generation_config_of_the_call_is_followed(model, kind):
    settings = {"max_new_tokens": 5, "num_beams": 2, "num_return_sequences": 2, "eos_token_id": -1}
    given = model.generate(IDS, generation_config=kind(**settings))
    assert torch.equal(given, model.generate(IDS, **settings))
    assert model.generate(IDS, generation_config=kind(**settings), max_new_tokens=2).shape == (2, 5)   # the call wins


def test_a_generation_config_of_transformers_is_followed(model):
    config = pytest.importorskip("transformers").GenerationConfig(max_new_tokens=4, eos_token_id=-1)
    assert torch.equal(model.generate(IDS, generation_config=config),
                       model.generate(IDS, max_new_tokens=4, eos_token_id=-1))
