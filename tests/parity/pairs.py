"""One model twice: transformers' with random weights, and ours loaded from the folder that transformers wrote."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from parity.families import FAMILIES, SCALINGS
from transformers import AutoConfig, AutoModelForCausalLM

from ayllu.checkpoint.load import load_checkpoint
from ayllu.model.llama import Llama

TOLERANCE = 1e-4                                         # of the standard deviation of the logits, which is at least 1
TEXT = 48                                                # tokens: longer than every window and every original context


@dataclass(frozen=True)
class Pair:
    ours: Llama
    theirs: torch.nn.Module


@cache
def pair(name: str) -> Pair:
    """Both models of a family or a RoPE scaling, in float32 and eval mode."""
    theirs = random_model({**FAMILIES, **SCALINGS}[name], seed=len(name))
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_checkpoint(Path(folder)).model
        ours.load_state_dict({k: v.clone() for k, v in ours.state_dict().items()}, assign=True)  # off the mapped file
    return Pair(ours, theirs)


def random_model(config: dict, seed: int) -> torch.nn.Module:
    """Random weights under which every part matters: sharp attention, small inputs to the norms, wide logits."""
    table = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **table),
                                             attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(name, noise, model.config))
    return model


def _scaled(name: str, noise: torch.Tensor, config) -> torch.Tensor:
    if name.endswith("norm.weight"):
        feeds_tied_head = name == "model.norm.weight" and config.tie_word_embeddings
        return (1 + 0.3 * noise) * (100 / config.hidden_size**0.5 if feeds_tied_head else 1)  # logits of std 2, too
    if name.endswith("bias"):
        return 0.5 * noise
    if "embed_tokens" in name:
        return 0.02 * noise                              # a variance near eps: another eps is seen
    gain = 2.0 if any(part in name for part in ("q_proj", "k_proj", "lm_head")) else 1.0
    return gain * noise / noise.shape[1]**0.5


def random_ids(rows: int, length: int, seed: int = 0, vocab: int = 223) -> torch.Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference of logits in standard deviations of theirs, which must be wide enough to mean something."""
    std = theirs.std()
    assert std >= 1, f"logits have a standard deviation of {std:.3f}: nothing would be seen"
    return ((ours - theirs).abs().max() / std).item()


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    found = difference(ours, theirs)
    assert found < TOLERANCE, f"logits differ by {found:.2e} standard deviations"
