"""Losses of preferences and their gradients are those of TRL's own trainers, on the same weights and the same ids.

Optional: TRL is no dependency, and installing it may change transformers. In an environment of its own:
`pip install trl` beside Ayllu, then `pytest tests/parity/test_trl.py`.
"""

from types import SimpleNamespace

import pytest
import torch

trl = pytest.importorskip("trl", reason="TRL isn't installed: an optional comparison (pip install trl)")

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from ayllu.checkpoint.load import load_checkpoint  # noqa: E402
from ayllu.data.pair_loader import PairBatch  # noqa: E402
from ayllu.data.pairs import Answer, Compared  # noqa: E402
from ayllu.train import preference_losses as losses  # noqa: E402
from ayllu.train.answer_logps import answer_logps  # noqa: E402
from ayllu.train.prefer_config import PreferConfig  # noqa: E402
from ayllu.train.prefer_loss import Tally, prefer_loss  # noqa: E402

CPU = torch.device("cpu")
PAIRS = [("the fox", " walked along the river", " read books"), ("the bird and", " the stars", " every day, every day"),
         ("once upon", " a time", " the river"), ("def add", "(a, b)", " fox")]


def models(folder):
    """Theirs and ours, away from the reference in the same way, and the reference of each."""
    made = []
    for shift in (0.0, 0.02):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        ours = load_checkpoint(folder, dtype="float32").model
        with torch.no_grad():
            for model in (theirs, ours):
                for parameter in model.parameters():
                    parameter.mul_(1 + shift)
        ours.requires_grad_(True)
        made.append((theirs, ours))
    return made


def trainer_of(kind, settings, folder, tmp_path, rows):
    (reference, _), (theirs, _) = models(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    config = settings(output_dir=str(tmp_path), per_device_train_batch_size=len(rows), use_cpu=True, bf16=False,
                      report_to=[], gradient_checkpointing=False)
    return kind(model=theirs, ref_model=reference, args=config, train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer)


def answers_of(ids, mask):
    out = []
    for row, own in zip(ids.tolist(), mask.tolist(), strict=True):
        end = len(own) - own[::-1].index(1)
        out.append(Answer(torch.tensor(row[:end], dtype=torch.int32).numpy(), own.index(1)))
    return out


def assert_equal_gradients(theirs, ours):
    pairs = {"model.embed_tokens": "tok_embeddings", "model.layers.0.self_attn.q_proj": "layers.0.attention.wq",
             "model.layers.1.mlp.down_proj": "layers.1.feed_forward.w2"}
    for name, own in pairs.items():
        a, b = theirs.get_submodule(name).weight.grad, ours.get_submodule(own).weight.grad
        assert a.abs().max() > 1e-6
        torch.testing.assert_close(b, a, rtol=2e-3, atol=2e-5)           # float32 in another order


def logps_of(model, answers):
    with torch.no_grad():
        found = PairBatch([Compared(a, None, "") for a in answers], None).to(CPU)
        return answer_logps(model, found).numpy()


@pytest.mark.parametrize("method", ["dpo", "ipo"])
def test_pairs(tiny_checkpoint, tmp_path, method):
    kind = {"dpo": "sigmoid", "ipo": "ipo"}[method]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    trainer = trainer_of(trl.DPOTrainer, lambda **k: trl.DPOConfig(loss_type=[kind], beta=0.3, **k), tiny_checkpoint,
                         tmp_path, rows)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    (_, reference), (_, ours) = models(tiny_checkpoint)
    found = answers_of(batch["input_ids"], batch["completion_mask"])
    half = len(found) // 2
    known = logps_of(reference, found).reshape(2, half).T
    loss = prefer_loss(ours, PairBatch([Compared(a, b, "") for a, b in zip(found[:half], found[half:], strict=True)],
                                       known).to(CPU), config(method, 0.3), Tally())
    ours_mean = loss.total / loss.weight
    ours_mean.backward()
    torch.testing.assert_close(ours_mean, theirs, rtol=1e-4, atol=1e-5)
    assert_equal_gradients(trainer.model, ours)


def test_kto(tiny_checkpoint, tmp_path):
    rows = [{"prompt": p, "completion": (c, r)[n % 2], "label": n % 2 == 0} for n, (p, c, r) in enumerate(PAIRS)]
    trainer = trainer_of(trl.KTOTrainer, lambda **k: trl.KTOConfig(beta=0.3, **k), tiny_checkpoint, tmp_path, rows)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    (_, reference), (_, ours) = models(tiny_checkpoint)
    own = answers_of(batch["input_ids"], batch["completion_mask"])
    crossed = answers_of(batch["KL_input_ids"], batch["KL_completion_mask"])
    good = [bool(label) for label in batch["label"]]
    known = torch.zeros(len(own), 3).numpy()
    known[range(len(own)), [0 if g else 1 for g in good]] = logps_of(reference, own)
    made = [Compared(a, None, "") if g else Compared(None, a, "") for a, g in zip(own, good, strict=True)]
    loss = prefer_loss(ours, PairBatch(made, known, tuple(crossed), logps_of(reference, crossed)).to(CPU),
                       config("kto", 0.3), Tally())
    mean = loss.total / loss.weight
    mean.backward()
    torch.testing.assert_close(mean, theirs, rtol=1e-4, atol=1e-5)
    assert_equal_gradients(trainer.model, ours)


def test_orpo_and_simpo():
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer
    torch.manual_seed(0)
    ours = [-3 * torch.rand(6) - 0.01 for _ in range(2)]
    theirs = [x.clone() for x in ours]
    for x in (*ours, *theirs):
        x.requires_grad_(True)
    stub = SimpleNamespace(beta=2.0, alpha=0.0, loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.0,
                           accelerator=SimpleNamespace(device=CPU))
    for mine, other in (
            (losses.simpo(*ours, 2.0, 0.7), CPOTrainer.cpo_loss(stub, *theirs)[0]),
            (losses.orpo(*ours, 2.0) + ours[0], -ORPOTrainer.odds_ratio_loss(stub, *theirs)[0])):    # the odds alone
        torch.testing.assert_close(mine, other)
        for a, b in zip(torch.autograd.grad(mine.sum(), ours), torch.autograd.grad(other.sum(), theirs), strict=True):
            torch.testing.assert_close(a, b)


def config(method, beta):
    return PreferConfig.model_validate({"name": "x", "out": "x", "base": "x", "method": method, "beta": beta,
                                        "data": {"sources": [{"path": "x"}]}})
