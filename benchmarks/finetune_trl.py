"""TRL's SFTTrainer as a worker of benchmarks/finetune.py, in an environment of its own: imports no ayllu.

The trainer runs in a thread, stopped at the beginning of each step until it is asked for one. What is tried: weights in
float32, in bfloat16, or in float32 under autocast; packing as its documentation recommends (with SDPA or FlexAttention,
where FlashAttention is not installed), some windows at once, and conversations one by one, which need no padding, with
gradients added up; eager and with torch_compile; all activations kept, or "checkpointed". Prompts are masked.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import peft
import torch
import transformers
import trl
from datasets import Dataset
from lines import conversations, serve
from on_device import DEVICE, GPU, loaded, peak, wait
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

transformers.logging.set_verbosity_error()
begin, ended = threading.Semaphore(0), threading.Semaphore(0)
state: dict[str, Any] = {}


class Gate(TrainerCallback):
    """Lets one step through each time that one is asked for."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Wait to be asked."""
        begin.acquire()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Say that it is done."""
        ended.release()


def load(shape: dict[str, Any], setting: str, rows: int, threads: int, compiled: bool, method: str) -> dict[str, Any]:
    """The trainer, begun and waiting before its first step."""
    if "compiled" in setting and not compiled:
        raise ValueError("a quick run compiles nothing")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape["dim"], num_hidden_layers=shape["n_layers"], num_attention_heads=shape["n_heads"],
        num_key_value_heads=shape["n_kv_heads"], head_dim=shape["head_dim"], intermediate_size=shape["hidden_dim"],
        vocab_size=shape["vocab_size"], tie_word_embeddings=shape["tie_embeddings"],
        max_position_embeddings=shape["max_context"], rms_norm_eps=1e-5,
        attn_implementation="flex_attention" if "flex" in setting else "sdpa")
    torch.set_default_dtype(torch.bfloat16 if setting.startswith("bf16") else torch.float32)
    with DEVICE:                                         # drawn where the weights will lie
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    vocabulary = {f"t{i}": i for i in range(shape["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "t0")),
                                        pad_token="t1", eos_token="t2")
    made = [one for window in conversations(rows, shape["vocab_size"], shape["max_context"])
            for one in window]
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in made],
                              "labels": [[-100] * prompt + ids[prompt:] for ids, prompt in made]})
    packs, words = "packed" in setting, setting.split()
    at_once = 1 if not packs else min(int(words[words.index("by") + 1]), rows) if "by" in words else rows
    arguments = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=not GPU, bf16=not setting.startswith("float32"),
        per_device_train_batch_size=at_once, gradient_accumulation_steps=(rows if packs else len(made)) // at_once,
        max_length=shape["max_context"], packing=packs, learning_rate=1e-4, max_steps=1_000_000, save_strategy="no",
        report_to="none", logging_steps=1_000_000, gradient_checkpointing="checkpointed" in setting,
        optim="adamw_torch_fused", disable_tqdm=True, torch_compile="compiled" in setting)
    adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trl.SFTTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer,
                             peft_config=adapter if method == "lora" else None, callbacks=[Gate()])
    state["failed"] = None
    told = {"version": f"{trl.__version__} with transformers {transformers.__version__} and peft {peft.__version__}",
            **loaded(), "tokens": sum(len(ids) for ids, _ in made)}
    thread = threading.Thread(target=_train, args=(trainer,), daemon=True)
    thread.start()
    return told


def _train(trainer: Any) -> None:
    try:
        trainer.train()
    except BaseException as error:                       # told by the step that waits for it
        state["failed"] = error
        ended.release()


def run() -> dict[str, Any]:
    """One step of the trainer's own loop."""
    wait()
    start = time.perf_counter()
    begin.release()
    ended.acquire()
    if state["failed"] is not None:
        raise RuntimeError(f"the trainer ended: {state['failed']}") from state["failed"]
    wait()
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    serve({"load": load, "run": run, "peak": peak})
