"""What a server needs to know of a model whose engine runs elsewhere. Plain values: they travel between processes."""

from dataclasses import dataclass
from typing import Any

from ayllu.engine.engine import Engine
from ayllu.engine.far import FarCache, FarEngine, FarRunner, FarShelf
from ayllu.engine.ranks import LedEngine
from ayllu.server.served import Served


@dataclass(frozen=True)
class Facts:
    """Of the engine, and the fields of `Served` that come with the weights."""

    engine: FarEngine
    served: dict[str, Any]


def cache_tokens(engine: Engine | LedEngine | FarEngine) -> int:
    """Of how many tokens keys and values have room."""
    if isinstance(engine, FarEngine):
        return engine.cache.n_tokens
    return engine.scheduler.pool.n_pages * engine.settings.page_size


def facts_of(served: Served) -> Facts:
    """Where the engine runs."""
    engine = served.service.engine
    far = FarEngine(engine.config, engine.settings, engine.context,
                    FarRunner(engine.runner.dtype, engine.runner.device),
                    FarCache(engine.cache.nbytes, cache_tokens(engine)),
                    FarShelf(dict(engine.adapters.loaded), engine.adapters.most_bytes))
    return Facts(far, {"name": served.name, "tokenizer": served.tokenizer, "chat_template": served.chat_template,
                       "eos_ids": served.eos_ids, "defaults": served.defaults, "format": served.format,
                       "licence": served.licence, "base": served.base})
