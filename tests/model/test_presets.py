"""Published shapes give the published numbers of parameters."""

import pytest

from ayllu.errors import ConfigError
from ayllu.model.account import n_parameters
from ayllu.model.presets import PRESETS, preset

PUBLISHED = {
    "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-30b": 32_528_943_616, "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248, "llama3.1-70b": 70_553_706_496, "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400, "llama3.2-3b": 3_212_749_824,
    "codellama-7b": 6_738_546_688, "codellama-13b": 13_016_028_160, "codellama-34b": 33_743_970_304,
    "tinyllama-1.1b": 1_100_048_384, "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768, "qwen2-1.5b": 1_543_714_304, "qwen2-7b": 7_615_616_512,
    "smollm-135m": 134_515_008, "smollm-360m": 361_821_120, "smollm-1.7b": 1_711_376_384,
    "yi-6b": 6_061_035_520, "yi-34b": 34_388_917_248,
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameter_totals(name: str, published: int):
    assert n_parameters(preset(name)) == published


def test_stories_are_what_their_names_say():
    for name in ("stories15m", "stories42m", "stories110m"):
        assert abs(n_parameters(preset(name)) / 1e6 - int(name[7:-1])) < 1
    assert set(PUBLISHED) | {"stories15m", "stories42m", "stories110m"} == set(PRESETS)


def test_names():
    assert preset("Llama2-7B") is PRESETS["llama2-7b"]
    with pytest.raises(ConfigError, match="did you mean 'llama2-7b'"):
        preset("lama2-7b")
    with pytest.raises(ConfigError, match=r"there are: llama-7b, "):
        preset("xyz")
