"""What test rooms share: a tiny checkpoint with random weights and a real SentencePiece tokenizer; no skips in CI."""

import io
import signal
from pathlib import Path

import pytest
from ci_skips import (  # noqa: F401 - hooks
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_runtest_setup,
)
from hypothesis import settings
from workers import pytest_xdist_auto_num_workers, share_cores  # noqa: F401 - a hook

TEXT = """Once upon a time there was a small fox who liked to read books by the river.
The fox and the bird walked along the river every day and talked about the stars.
我喜欢阅读和编程。从前有一只小狐狸,它喜欢在河边读书。小鸟每天和狐狸一起散步,谈论星星。
def add(a, b): return a + b  # 12345 67890
"""

settings.register_profile("patient", deadline=None)      # on a busy machine an example may take any time
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Started in the background (`pytest &` in a script), Ctrl-C is ignored here and in all that the tests start."""
    share_cores(config)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A Hugging Face folder: 2 layers, 400 pieces with byte fallback, context 128, no chat template."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory) -> Path:
    """The same with a chat template."""
    folder = write_checkpoint(tmp_path_factory.mktemp("chat"))
    template = ("{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '\n' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def write_checkpoint(folder: Path) -> Path:
    import sentencepiece
    from untamed import untamed

    from ayllu.checkpoint.generation import GenerationDefaults
    from ayllu.checkpoint.hf import write_hf
    from ayllu.checkpoint.source import Entry, OpenCheckpoint
    from ayllu.model.config import LlamaConfig

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 20), model_writer=pieces, model_type="bpe", vocab_size=400,
        byte_fallback=True, split_digits=True, character_coverage=0.99, minloglevel=2, hard_vocab_limit=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
    vocab = sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue()).vocab_size()
    (folder / "tokenizer.model").write_bytes(pieces.getvalue())
    config = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64, vocab_size=vocab,
                         max_context=128)
    weights = {name: tensor.detach() for name, tensor in untamed(config).state_dict().items()}
    entries = {name: Entry(tuple(t.shape), t.dtype, lambda t=t: t, folder, "F32") for name, t in weights.items()}
    write_hf(folder, OpenCheckpoint(folder, "memory", config, entries,
                                    generation=GenerationDefaults(bos_id=1, eos_ids=(2,))))
    return folder
