"""With every extra switched off, training is ten lines of plain torch, bit for bit."""

import pytest
import torch

from ayllu.data.loader import WindowLoader
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule import Schedule, factor
from ayllu.train.state import TrainState

SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "hidden_dim": 48, "vocab_size": 64,
         "max_context": 32, "tie_embeddings": True}
STEPS = 12
OPTIM = OptimConfig(lr=1e-2, schedule=Schedule(kind="linear", warmup_steps=4, floor=0.2))


class Silent:
    def log(self, row):
        pass

    def advance(self, state, row):
        pass


def new_model(config):
    torch.manual_seed(0)                                 # dropout draws from here
    model = build_model(config)
    initialise(model, config.n_layers, 0)
    return model


def loader():
    tokens = torch.randint(0, 64, (2000,), generator=torch.Generator().manual_seed(0)).numpy().astype("<u2")
    return WindowLoader(tokens, 16, batch_size=4, seed=2)


def plain(model):
    """The slow twin: no loop of ours, torch's own AdamW."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embedding" in n]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  betas=(0.9, 0.95), eps=1e-8, fused=True)
    for number in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * factor(OPTIM.schedule, number, STEPS)
        weight = 0
        for part in loader().batch(number).split(2):
            value = next_token_loss(model, part)
            value.total.backward()
            weight = weight + value.weight
        for parameter in model.parameters():
            parameter.grad /= weight.float()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("config", [LlamaConfig(**SHAPE), TransformerConfig(**SHAPE, dropout=0.1)],
                         ids=["llama", "transformer-with-dropout"])
def test_with_everything_off_fit_is_a_plain_loop_bit_for_bit(tmp_path, config):
    model = new_model(config)
    settings = LoopConfig(steps=STEPS, batch_size=4, micro_batch=2, eval_every=5, checkpoint_every=5, autocast=False)
    fit(TrainState(model, build_optimizer(model, OPTIM)), loader(), next_token_loss, loop=settings, optim=OPTIM,
        run=tmp_path, observer=Silent(), evaluate=lambda state: {"held_out": 1.0}, device=torch.device("cpu"))
    expected = dict(plain(new_model(config)).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
