"""`--rope-scaling` and `--context`: what they make of a config, what they refuse, and that commands pass them on."""

import json

import pytest
import torch

from ayllu.cli.main import run
from ayllu.engine.llm import LLM
from ayllu.errors import ConfigError
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.llama import rope_frequencies
from ayllu.model.stretch import stretched
from ayllu.server.start import load_served

CONFIG = LlamaConfig(dim=32, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, vocab_size=101,
                     max_context=128)
YARN = CONFIG.model_copy(update={"max_context": 512, "rope_scaling": RopeScaling(kind="yarn", factor=4,
                                                                               original_context=128)})


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3"])
def test_a_scaling_stretches_the_trained_context(kind):
    new = stretched(CONFIG, f"{kind}:4")
    assert new.max_context == 512
    assert new.rope_scaling == RopeScaling(kind=kind, factor=4, original_context=128)
    assert stretched(CONFIG, kind, 512) == new           # the factor that the context needs
    assert stretched(new, "none") == CONFIG
    assert stretched(YARN, f"{kind}:2").max_context == 256                    # in place of the file's, not on top


def test_a_lower_context_leaves_the_rotation_as_it_was():
    for config in (CONFIG, YARN, CONFIG.model_copy(update={"rope_scaling": RopeScaling(kind="yarn", factor=4)})):
        lower = stretched(config, context=100)
        assert lower.max_context == 100
        assert torch.equal(rope_frequencies(lower)[0], rope_frequencies(config)[0])
    assert stretched(CONFIG, "yarn:4", 300).max_context == 300
    assert stretched(CONFIG, "yarn:4", 300).rope_scaling.factor == 4


@pytest.mark.parametrize(("scaling", "context", "said"), [
    ("yarn", None, "KIND:FACTOR"), ("ntk:4", None, "linear, dynamic, yarn, llama3"), ("yarn:x", None, "KIND:FACTOR"),
    ("yarn:0.5", None, "at least 1"), ("yarn:nan", None, "at least 1"), (None, 129, "--rope-scaling yarn"),
    ("yarn:2", 300, "takes 256"), ("none", 300, "takes 128")])
def test_what_cannot_be_meant_is_refused(scaling, context, said):
    with pytest.raises(ConfigError, match=said):
        stretched(CONFIG, scaling, context)


def test_generate_goes_past_the_trained_context(tiny_checkpoint, capsys):
    words = ["generate", "The fox " * 60, "--model", str(tiny_checkpoint), "--temperature", "0", "--max-tokens", "8",
             "--json"]
    assert run(words) == 2
    assert run([*words, "--rope-scaling", "yarn:4"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    llm = LLM.load(tiny_checkpoint, rope_scaling="yarn:4", runner="eager")
    assert llm.model.config.max_context == 512
    assert record["results"][0]["ids"] == llm.generate("The fox " * 60, temperature=0, max_tokens=8)[0].ids


def test_the_server_takes_a_context_and_refuses_what_pages_cannot_hold(tiny_checkpoint):
    served = load_served(str(tiny_checkpoint), rope_scaling="yarn", context=32_768)
    assert served.context == 32_768
    assert load_served(str(tiny_checkpoint), context=64).context == 64
    with pytest.raises(ConfigError, match="take yarn"):
        load_served(str(tiny_checkpoint), rope_scaling="dynamic:4")
