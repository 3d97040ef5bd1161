"""Ayllu's eye and ear as a worker of benchmarks/media.py."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lines import serve
from media_shapes import AUDIO, MARK, STACK, TEXT, VISION, ids, picture, sound, timed

from ayllu.engine.runner import Batch, make_runner
from ayllu.media.audio import log_mel
from ayllu.media.fast import fast
from ayllu.media.senses import Senses, SensesConfig
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama
from ayllu.model.shown import shown_in

state: dict[str, Any] = {}


def load(what: str, dtype: str, threads: int) -> dict[str, Any]:
    """An encoder alone, or with a projector and a Llama; random weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = {key: (VISION if "image" in what else AUDIO)[key] for key in ("dim", "n_layers", "n_heads", "hidden_dim")}
    project = {"width": shape["dim"], "out": TEXT["dim"]}
    if "image" in what:
        parts: dict[str, Any] = {"eye": {
            "pixels": {"size": VISION["image_size"]}, "project": project, "depth": -2, "vision": {
                "kind": "clip", "shape": {**shape, "activation": "quick_gelu"}, "image_size": VISION["image_size"],
                "patch_size": VISION["patch_size"]}}}
    else:
        parts = {"ear": {"project": {**project, "gather": "stack", "every": STACK}, "audio": {
            "shape": {**shape, "key_bias": False}, "n_mels": AUDIO["n_mels"], "seconds": AUDIO["seconds"]}}}
    kind = getattr(torch, dtype)
    with torch.inference_mode():
        state.update(senses=fast(Senses(SensesConfig.model_validate(parts)).to(kind)), dtype=kind, what=what)
        if "first token" in what:
            model = Llama(LlamaConfig(**TEXT)).to(kind).eval()
            state["runner"] = make_runner(model, "auto")
    return {"torch": torch.__version__}


def setting(name: str) -> dict[str, Any]:
    """There is one."""
    return {}


@torch.inference_mode()
def run(batch: int) -> dict[str, Any]:
    """Seconds of one pass."""
    senses, what = state["senses"], state["what"]
    if what == "image encoder":
        x = torch.randn(batch, 3, VISION["image_size"], VISION["image_size"]).to(state["dtype"])
        return timed(lambda: senses.eye.encoder(x))
    if what == "audio encoder":
        x = torch.randn(batch, AUDIO["n_mels"], 100 * AUDIO["seconds"]).to(state["dtype"])
        return timed(lambda: senses.ear.encoder(x))
    data, samples = picture(), sound()
    return timed(lambda: _first_token(data, samples))


def _first_token(data: bytes, samples: Any) -> int:
    senses, runner = state["senses"], state["runner"]
    if "image" in state["what"]:
        (features,) = senses.features([senses.image(data)])
    else:
        mel = log_mel(samples, AUDIO["n_mels"], 16_000 * AUDIO["seconds"])
        features = senses.ear(mel[None].to(state["dtype"]))[0]
    prompt = ids(len(features))
    cache = runner.new_cache([0], len(prompt) + 1)
    shown = shown_in([[(prompt.index(MARK), features)]], [0], len(prompt), state["dtype"], features.device)
    return int(runner.step(Batch(torch.tensor([prompt]), cache, shown=shown))[0].argmax())


if __name__ == "__main__":
    serve({"load": load, "setting": setting, "run": run})
