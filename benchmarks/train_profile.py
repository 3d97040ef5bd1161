"""Where the time of one of our training steps goes, beside the least that each part needs.

    python benchmarks/train_profile.py 15m 32                  # shape and rows; --threads 1; --torch: no C++ kernels

Products: operations over the matrix peak. Passes over memory: bytes over the bandwidth of a copy. Both are measured in
the run. The profiler sees wall time: on a machine that does something else too, only the shares mean anything.
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import train_ours
from torch.profiler import ProfilerActivity, profile
from train import SHAPES

from ayllu.native import build

PARTS = {"_Function": "head and loss", "ayllu::attention_backward": "attention, backward",
         "ayllu::attention": "attention, forward", "flash_attention_for_cpu_backward": "attention, backward",
         "flash_attention_for_cpu": "attention, forward", "weight_gradient": "gradients of the blocks' matrices",
         "aten::mm": "products of the blocks", "CompiledFxGraph": "norms, RoPE, SwiGLU, sums, roundings",
         "_fused_adamw_": "AdamW"}


def main() -> None:
    """Three steps to warm up, two under the profiler, and the table."""
    options = _options()
    if options.torch:
        build.missing = lambda: "--torch"                # type: ignore[assignment]
    shape, rows = SHAPES[options.shape], options.rows
    train_ours.load(shape, "bf16_masters", rows, options.threads, True)
    for _ in range(3):
        train_ours.run()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(2):
            train_ours.run()
    spent: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        part = next((part for name, part in PARTS.items() if name in event.key), "all else")
        spent[part] += event.self_cpu_time_total / 2e3
    peak, bandwidth, total = train_ours.peak_flops()["flops_per_s"], copy_rate(), sum(spent.values())
    least = floors(shape, rows * shape["max_context"], peak, bandwidth, "gradients of the blocks' matrices" in spent)
    print(f"{options.shape}, {rows} rows, {options.threads} threads: peak {peak / 1e12:.2f} T operations/s, "
          f"copying {bandwidth / 1e9:.1f} GB/s\n\n| part | ms | share | at least, ms |\n|---|---:|---:|---:|")
    for part, ms in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {part} | {ms:.1f} | {ms / total:.0%} | {f'{least[part]:.1f}' if part in least else ''} |")
    print(f"| all | {total:.1f} | | {sum(least.values()):.1f} |")


def floors(shape: dict[str, int], tokens: int, peak: float, bandwidth: float,
           gradients_apart: bool) -> dict[str, float]:
    """Milliseconds of each part. Attention's backward pass has 5 products where the forward pass has 2."""
    D, E, F, L = shape["dim"], shape["head_dim"] * shape["n_heads"], shape["hidden_dim"], shape["n_layers"]
    head, matrices = D * shape["vocab_size"], L * (4 * D * E + 3 * D * F)
    attention = L * E * shape["max_context"]             # one product over half a square, in operations a token
    work = {"head and loss": 6 * head, "attention, forward": 2 * attention, "attention, backward": 5 * attention,
            "products of the blocks": (4 if gradients_apart else 6) * matrices}
    if gradients_apart:
        work["gradients of the blocks' matrices"] = 2 * matrices
    passes = 3 * 2 * L * (8 * D + 3 * F) * tokens        # bytes: read and written forward, and twice that backward
    return {part: 1e3 * n * tokens / peak for part, n in work.items()} | {
        "norms, RoPE, SwiGLU, sums, roundings": 1e3 * passes / bandwidth, "AdamW": 28e3 * (head + matrices) / bandwidth}


def copy_rate() -> float:
    """Bytes read and written per second, the best of five copies of 256 MB."""
    a, b = torch.zeros(64_000_000), torch.empty(64_000_000)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        b.copy_(a)
        best = min(best, time.perf_counter() - start)
    return 2 * a.nbytes / best


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("rows", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch", action="store_true", help="no C++ kernels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
