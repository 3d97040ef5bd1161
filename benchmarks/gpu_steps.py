"""The engine on a GPU at a 7B shape in bfloat16: decoding beside the memory's bandwidth, prompts beside its products.

    python benchmarks/gpu_steps.py                       # llama2-7b, random weights: needs about 20 GB on the GPU
    python benchmarks/gpu_steps.py --quick               # fewer steps, the fast way only
    python benchmarks/gpu_steps.py --steps 32            # every way, with fewer steps than 128
    python benchmarks/gpu_steps.py --shape tinyllama-1.1b --json out.json

Bandwidth and peak are measured in the run. A decoding step must read every matrix but the embedding once, and the keys
and values of each row; a prompt takes two operations for each weight and token, and attention. Whole steps of the
engine are timed, choosing included; each figure is the median of all steps. Goals: at batch 1, decoding reaches 70 % of
the bandwidth; a prompt of 2048 tokens reaches 60 % of the peak. The fast way has everything: a fused runner, Triton and
CUDA graphs. The others leave one thing out: the fused runner (the model file as it is, with Triton's attention in CUDA
graphs), the graphs, or Triton and graphs. Without a GPU it says so and ends with code 2.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ayllu.device import matrix_peak
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.model.config import LlamaConfig
from ayllu.model.llama import Llama
from ayllu.model.params import SamplingParams
from ayllu.model.presets import preset

GOALS = {"decode": 0.70, "prompt": 0.60}
WAYS: dict[str, dict[str, Any]] = {"fast": {"runner": "fused"}, "no fusion": {"runner": "eager"},
                                   "no graphs": {"runner": "fused", "cuda_graphs": "off"},
                                   "torch": {"attention": "torch"}}
N_BEFORE = 128                                           # tokens that a decoding row begins with
WARM = 4                                                 # steps that aren't counted: kernels are compiled, graphs made


def random_model(config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> Llama:
    """torch's own initial values, made where they will lie."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Llama(config).eval()
    finally:
        torch.set_default_dtype(before)


def bandwidth(device: torch.device, n_bytes: int) -> float:
    """Bytes per second: the better of reading a buffer and of copying one to another."""
    a, b = (torch.ones(n_bytes // 4, device=device) for _ in range(2))
    return max(n_bytes / seconds_of(lambda: a.sum().item(), 10),
               2 * n_bytes / seconds_of(lambda: b.copy_(a)[0].item(), 10))


def seconds_of(call: Any, n: int) -> float:
    """The fastest of n calls, each of which waits for the device, after one more."""
    times = list[float]()
    for _ in range(n + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def matrix_weights(model: Llama) -> int:
    """Numbers that a step reads whatever its rows are: all matrices; the embedding only where it is the head, too."""
    embedding = 0 if model.config.tie_embeddings else model.tok_embeddings.weight.numel()
    return sum(p.numel() for p in model.parameters() if p.dim() == 2) - embedding


def step_seconds(model: Llama, n_rows: int, n_prompt: int, n_steps: int, settings: dict[str, Any]) -> dict[str, float]:
    """Medians of the steps that read one prompt at once, and of those in which n_rows rows have one token each."""
    ids = torch.randint(3, model.config.vocab_size, (n_rows, n_prompt), generator=torch.Generator().manual_seed(0))
    n_new = n_steps + WARM + n_rows                      # the first row waits for the last one's prompt
    n_pages = n_rows * (-(-(n_prompt + n_new) // 16) + 1)
    runner = make_runner(model, settings.get("runner", "auto"), shares=True)
    settings = {name: value for name, value in settings.items() if name != "runner"}
    engine = Engine(runner, EngineSettings(n_pages=n_pages, max_rows=n_rows, token_budget=n_prompt + n_rows,
                                           prefix_cache=False, **settings))
    for row in ids.tolist():
        engine.submit(Request(tuple(row), SamplingParams(temperature=0, max_tokens=n_new)))
    prompts, steps = list[float](), list[float]()
    while not engine.is_idle:
        reads = len(engine.scheduler.running) < n_rows
        start = time.perf_counter()
        engine.step()                                    # what was chosen is read back, so the device is waited for
        (prompts if reads else steps).append(time.perf_counter() - start)
    return {"prompt_s": statistics.median(prompts), "decode_s": statistics.median(steps[WARM:])}


def decode_cell(model: Llama, n_rows: int, n_steps: int, way: str, rate: float) -> dict[str, Any]:
    """Bytes that a step must read, over what the memory could have given in its time."""
    c, size = model.config, model.tok_embeddings.weight.element_size()
    length = N_BEFORE + WARM + n_steps // 2
    n_bytes = size * (matrix_weights(model) + n_rows * length * 2 * c.n_layers * c.n_kv_heads * c.head_dim)
    seconds = step_seconds(model, n_rows, N_BEFORE, n_steps, WAYS[way])["decode_s"]
    return {"cell": f"decode, {n_rows} rows, {way}", "ms": 1e3 * seconds, "tokens_s": n_rows / seconds,
            "share": n_bytes / seconds / rate}


def prompt_cell(model: Llama, n_prompt: int, n_prompts: int, way: str, peak: float) -> dict[str, Any]:
    """Operations that a prompt takes, over what the device could have done in its time. Prompts come one by one."""
    c = model.config
    head = c.vocab_size * c.dim                          # computed for the last token only
    work = 2 * n_prompt * (matrix_weights(model) - head) + 2 * n_prompt**2 * c.n_layers * c.n_heads * c.head_dim
    seconds = statistics.median(step_seconds(model, 1, n_prompt, WARM, WAYS[way])["prompt_s"]
                                for _ in range(n_prompts))
    return {"cell": f"prompt of {n_prompt}, {way}", "ms": 1e3 * seconds, "tokens_s": n_prompt / seconds,
            "share": work / seconds / peak}


def measure(model: Llama, rate: float, peak: float, is_quick: bool, n_steps: int = 128) -> list[dict[str, Any]]:
    """All cells; those with a goal are the fast way's."""
    ways = list(WAYS)[:1] if is_quick else list(WAYS)
    n_prompt = min(2048, model.config.max_context - 2 * WARM)
    n_steps = 16 if is_quick else n_steps
    found = [decode_cell(model, n_rows, n_steps, way, rate) for n_rows in (1, 8, 32) for way in ways]
    found += [prompt_cell(model, n_prompt, 3 if is_quick else 5, way, peak) for way in ways]
    for cell, goal in ((found[0], GOALS["decode"]), (found[-len(ways)], GOALS["prompt"])):
        cell["ratio"] = cell["share"] / goal
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama2-7b", help="a name that `ayllu info` knows")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=128, help="decoding steps of a cell; --quick has 16")
    parser.add_argument("--json", type=Path, help="also write the cells here")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: torch sees no CUDA device, and nothing was measured. Run this where `ayllu doctor` lists one.",
              file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda")
    rate, peak = bandwidth(device, 2**31), matrix_peak(device, torch.bfloat16)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}: {rate / 1e9:.0f} GB/s, "
          f"{peak / 1e12:.0f} Tflop/s in bfloat16", flush=True)
    found = measure(random_model(preset(args.shape), torch.bfloat16, device), rate, peak, args.quick,
                    args.steps)
    for cell in found:
        print(f"{cell['cell']:32} {cell['ms']:9.2f} ms {cell['tokens_s']:9.0f} tokens/s {cell['share']:7.1%}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    worst = min((cell for cell in found if "ratio" in cell), key=lambda cell: cell["ratio"])
    print(f"worst ratio: {worst['ratio']:.2f} ({worst['cell']})")


if __name__ == "__main__":
    main()
