"""How a run begins whose ranks hold whole models: sft, prefer, reward models, grpo and heads begin so."""

import json
from types import SimpleNamespace

import pytest
import torch

from ayllu.config import Settings
from ayllu.errors import ConfigError
from ayllu.model.parallel import Layout
from ayllu.train import course
from ayllu.train.course import whole_models


class Small(Settings):
    out: str
    seed: int = 3


@pytest.fixture
def begin(tmp_path, monkeypatch):
    def of(layout, data=None):
        monkeypatch.setattr(course, "ranks_of", lambda *_: layout)
        return whole_models(Small(out=str(tmp_path)), None, tmp_path / "recipes", torch.device("cpu"), "teaching", data)

    return of


def test_the_folder_tells_what_it_is_and_each_rank_draws_its_own(begin, tmp_path):
    begin(second_of_two(), lambda: {"tokens": 5})
    second = torch.rand(3)
    begin(Layout(), lambda: {"tokens": 5})
    first = torch.rand(3)
    assert not torch.equal(first, second)
    begin(Layout())
    assert torch.equal(torch.rand(3), first)             # the seed counts
    assert json.loads((tmp_path / "data.json").read_text()) == {"tokens": 5}
    assert json.loads((tmp_path / "config.json").read_text())["folder"].endswith("recipes")
    assert (tmp_path / "environment.json").exists()


def second_of_two():
    return SimpleNamespace(data_rank=1, is_sharded=False)


@pytest.mark.parametrize("parts", [{"tensor": 2}, {"mode": "fsdp"}], ids=str)
def test_parts_of_models_are_refused(begin, parts, monkeypatch):
    layout = Layout(**parts)
    monkeypatch.setattr("ayllu.dist.world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"teaching is shared out with whole models only.*parallel\.mode=data"):
        begin(layout)
