"""A checkpoint of whose weights each rank holds its share, for an engine on several ranks (ranks.py)."""

import torch

from ayllu import dist
from ayllu.checkpoint.load import Checkpoint, load_checkpoint
from ayllu.checkpoint.source import OpenCheckpoint
from ayllu.device import pick_device, pick_dtype
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.llama import Llama
from ayllu.model.parallel import Layout, ParallelConfig, build_sharded, fill, new_layout


def load_share(name: str, *, dtype: str | None = None, device: str = "auto", rope_scaling: str | None = None,
               context: int | None = None) -> Checkpoint:
    """A checkpoint of whose weights this rank holds its share."""
    def build(source: OpenCheckpoint, *, dtype: str | torch.dtype | None = None,
              device: str | torch.device | None = None) -> Llama:
        kind = source.dtype if dtype is None else pick_dtype(str(dtype))
        place = torch.device(device or "cpu")
        layout = new_layout(ParallelConfig(mode="data", tensor=dist.world_size()), source.config, place)
        model = build_sharded(source.config, layout, place).to(kind)
        fill(model, source.tensors())
        assert isinstance(model, Llama)
        return model.eval()

    own = dist.own_device(pick_device(device))
    return load_checkpoint(name, dtype=dtype, device=own, rope_scaling=rope_scaling, context=context, build=build)


def held_by_rank(config: LlamaConfig) -> LlamaConfig | TransformerConfig:
    """The heads whose keys and values one rank holds."""
    return Layout(tensor=dist.world_size()).local_config(config)
