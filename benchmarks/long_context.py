"""Long context: loss by position, hidden keys found, and what a token costs as the context grows to 32k.

Three parts, each by itself with --parts:

loss      nats per token of real books by position, each RoPE scaling on ayllu-mini (trained with 2,048 tokens) and on
          the small models over bytes of benchmarks/passkey_model.py (512; and one that went on at 4,096 with YaRN)
passkey   five digits hidden at five depths of a text of the small models' language: the share said again in full
cost      ms per prompt token and per new token at each length, ours with plain and int8 pages and transformers with
          its dynamic cache in turns; the floor is the bytes of weights, keys and values over the measured bandwidth

    python benchmarks/long_context.py --json long.json --docs --svg docs/pictures/long_context.svg
    python benchmarks/long_context.py --quick
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from generate import SHAPES, matmul_parameters
from lines import Worker
from long_context_quality import Reader, bundled, keys_found, nats, passkey
from peers import machine, python_of

from ayllu.files import write_json
from ayllu.log import say, setup

HERE = Path(__file__).parent
DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
WENT_ON = "yarn:8"                                       # of the small model that went on
KINDS = ("linear", "dynamic", "yarn", "llama3")
ZH = {"context": "上下文", "way": "方式", "bytes per token": "每词元字节", "new token, ms": "新词元，毫秒",
      "floor, ms": "下限，毫秒", "share of the floor": "达到下限的比例", "prompt token, ms": "提示词元，毫秒",
      "model (trained with)": "模型（训练长度）", "pages": "页", "int8 pages": "int8 页"}
BYTES = {"float32": 4, "bfloat16": 2}


def lengths(first: int, last: int) -> list[int]:
    """Powers of two, both ends included."""
    return [2**k for k in range(first.bit_length() - 1, last.bit_length())]


def scalings(reader: Reader, longest: int) -> list[str | None]:
    """None, a small factor of YaRN, and each kind with the factor that the longest text needs."""
    factor = max(2, longest // reader.trained)
    if reader.went_on:                                   # what it went on with, and the same kind stretched further
        return list(dict.fromkeys([reader.went_on, f"yarn:{factor}"]))
    return [None, *dict.fromkeys(["yarn:4", *(f"{kind}:{factor}" for kind in KINDS)])]


def small_models(args: argparse.Namespace) -> list[Reader]:
    """The model over bytes and the one that went on from it; trained now, where no earlier run has left them."""
    folder = args.models
    plain, stretched = folder / "trained", folder / "stretched"
    for out, more in ((plain, []), (stretched, ["--from", plain, "--stretch", WENT_ON])):
        if not (out / "config.json").is_file():
            subprocess.run([sys.executable, HERE / "passkey_model.py", "--out", out, *more], check=True)
    return [passkey(plain, "bytes", args.longest, args.texts),
            passkey(stretched, f"bytes, {WENT_ON}", args.longest, args.texts, WENT_ON)]


def quality(reader: Reader, part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each scaling: a number for each length."""
    rows = []
    for scaling in scalings(reader, args.longest):
        row: dict[str, Any] = {"model": reader.name, "trained": reader.trained, "scaling": scaling or "none"}
        for length in lengths(args.shortest, args.longest):
            start = time.perf_counter()
            if part == "loss":
                row[str(length)] = nats(reader, scaling, length, max(1, min(8, args.longest // 4 // length)))
            else:
                n_keys = max(1, min(args.keys, 4096 // length))
                row[str(length)] = keys_found(reader, scaling, length, DEPTHS, n_keys)
            say(f"{part} {row['model']} {row['scaling']} {length}: {row[str(length)]:.3f} "
                f"({time.perf_counter() - start:.0f} s)")
        rows.append(row)
    return rows


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """Each length's milliseconds, ours and theirs by turns; the median over rounds and steps."""
    shape, log = SHAPES[args.shape], Path(tempfile.mkdtemp()) / "workers.log"
    ours = Worker(sys.executable, HERE / "long_context_ours.py", args.threads, log)
    peer = Worker(args.peer_python or python_of("transformers"), HERE / "long_context_peer.py", args.threads, log)
    both = {"shape": shape, "dtype": args.dtype, "threads": args.threads, "longest": args.longest}
    kv = ours.ask("load", **both)["kv_bytes"]
    version = peer.ask("load", **both)["version"]
    limits = ours.ask("limits", dtype=args.dtype, threads=args.threads)
    ways = {"pages": (ours, {"kind": "auto"}), "int8 pages": (ours, {"kind": "int8"}), "transformers": (peer, {})}
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for _ in range(args.rounds):
        for length in lengths(args.shortest, args.longest):
            for way, (worker, more) in ways.items():
                told = worker.ask("run", length=length, n_new=args.new, **more)
                cell = found.setdefault((way, length), {"prompt": [], "step": []})
                cell["prompt"].append(told["prompt_s"] * 1000)
                cell["step"] += [s * 1000 for s in told["step_s"][1:]]
        ours.close()                                     # the next round reads every prompt again
        ours = Worker(sys.executable, HERE / "long_context_ours.py", args.threads, log)
        ours.ask("load", **both)
        ways |= {"pages": (ours, {"kind": "auto"}), "int8 pages": (ours, {"kind": "int8"})}
    ours.close()
    peer.close()
    kv_of = {"pages": kv["auto"], "int8 pages": kv["int8"], "transformers": kv["auto"]}
    weights = matmul_parameters(shape) * BYTES[args.dtype]
    rows = []
    for (way, length), cell in found.items():
        step = statistics.median(cell["step"])
        floor = 1000 * (weights + kv_of[way] * length) / limits["bytes_per_s"]
        rows.append({"way": way, "length": length, "kv_bytes": kv_of[way], "step_ms": step, "floor_ms": floor,
                     "share": floor / step, "prompt_ms": statistics.median(cell["prompt"])})
    return {"shape": args.shape, "dtype": args.dtype, "threads": args.threads, "transformers": version,
            "bytes_per_s": limits["bytes_per_s"], "rows": rows}


def worst_ratio(rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """Theirs over ours, new tokens and prompt tokens, plain pages: the smallest, whose goal is 1."""
    by = {(row["way"], row["length"]): row for row in rows}
    return min((by["transformers", n][key] / by["pages", n][key], f"{n} tokens, {name}")
               for n in sorted({row["length"] for row in rows})
               for key, name in (("step_ms", "new token"), ("prompt_ms", "prompt token")))


def quality_table(rows: Sequence[dict[str, Any]], form: str) -> str:
    """In Markdown."""
    columns = [key for key in rows[0] if key.isdecimal()]
    lines = ["| model (trained with) | `--rope-scaling` | " + " | ".join(f"{int(c):,}" for c in columns) + " |",
             "| --- | --- |" + " ---: |" * len(columns)]
    lines += [f"| {row['model']} ({row['trained']:,}) | {row['scaling']} | "
              + " | ".join(format(row[c], form) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def cost_table(told: dict[str, Any]) -> str:
    """In Markdown, with what was measured where above it."""
    lines = [f"{date.today()}, {machine()}, {told['threads']} threads, {told['bytes_per_s'] / 1e9:.1f} GB/s, torch "
             f"{torch.__version__}, transformers {told['transformers']}, {told['shape']} {told['dtype']}:", "",
             "| context | way | bytes per token | new token, ms | floor, ms | share of the floor | prompt token, ms |",
             "| ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    lines += [f"| {row['length']:,} | {row['way']} | {row['kv_bytes']:,.0f} | {row['step_ms']:.2f} "
              f"| {row['floor_ms']:.2f} | {row['share']:.0%} | {row['prompt_ms']:.3f} |" for row in told["rows"]]
    return "\n".join(lines)


def put(page: Path, part: str, table: str) -> None:
    """The table in its place in a page of the documentation."""
    if ".zh-CN" in page.name:
        for word, chinese in ZH.items():
            table = table.replace(f"| {word} ", f"| {chinese} ")
    begin, end = f"<!-- long_context.py: {part} -->\n", "\n<!-- end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if found:
        page.write_text(before + begin + table + end + rest.partition(end)[2], encoding="utf-8")


def draw(results: dict[str, Any], file: Path) -> None:
    """Loss by position, keys found, and the cost of a new token."""
    from matplotlib.figure import Figure

    parts = [part for part in ("loss", "passkey") if part in results]
    panels = [(part, model) for part in parts for model in dict.fromkeys(r["model"] for r in results[part])]
    figure = Figure(figsize=(9, 2.6 * -(-(len(panels) + ("cost" in results)) // 2)), layout="constrained")
    axes = figure.subplots(-(-(len(panels) + ("cost" in results)) // 2), 2, squeeze=False).flatten()
    colours = dict(zip(("none", *KINDS), ("#444", "#c05621", "#2f855a", "#0b6e99", "#97266d"), strict=True))
    for axis, (part, model) in zip(axes, panels, strict=False):
        for row in (r for r in results[part] if r["model"] == model):
            kind, _, factor = row["scaling"].partition(":")
            x = [int(key) for key in row if key.isdecimal()]
            axis.plot(x, [row[str(n)] for n in x], label=row["scaling"], color=colours[kind],
                      linestyle=":" if factor == "4" else "-", marker=".")
        axis.axvline(next(r["trained"] for r in results[part] if r["model"] == model), color="#bbb", linewidth=1)
        if part == "passkey":
            axis.set_ylim(-0.05, 1.05)
        axis.set_title(f"{model}: {'nats per token' if part == 'loss' else 'share of keys found'}", fontsize=9)
        axis.legend(fontsize=6, ncols=2)
    if "cost" in results:
        axis = axes[len(panels)]
        for way in dict.fromkeys(r["way"] for r in results["cost"]["rows"]):
            rows = [r for r in results["cost"]["rows"] if r["way"] == way]
            axis.plot([r["length"] for r in rows], [r["step_ms"] for r in rows], label=way, marker=".")
        axis.set_title("ms per new token", fontsize=9)
        axis.legend(fontsize=6)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.tick_params(labelsize=7)
    for axis in axes[len(panels) + ("cost" in results):]:
        axis.remove()
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    """Measure the parts that are asked for, print tables, write JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="loss,passkey,cost")
    parser.add_argument("--quick", action="store_true", help="up to 1k tokens, one key at each depth: under a minute")
    parser.add_argument("--longest", type=int, default=32_768)
    parser.add_argument("--shortest", type=int, default=512)
    parser.add_argument("--texts", type=int, default=1, help="books of each language")
    parser.add_argument("--models", type=Path, metavar="FOLDER", default=HERE / "runs" / "passkey",
                        help="where the small models are, or will be once they are trained")
    parser.add_argument("--keys", type=int, default=4, help="at each depth, fewer for long texts")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="bundled")
    parser.add_argument("--dtype", choices=sorted(BYTES), default="float32")
    parser.add_argument("--new", type=int, default=16, help="new tokens at each length")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", help="a Python that has transformers; default: an environment made for it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/long-context.md and its twin")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the results here")
    args = parser.parse_args()
    setup()
    if args.quick:
        args.shortest, args.longest, args.texts, args.keys, args.rounds, args.new = 512, 1024, 1, 1, 1, 4
    torch.set_num_threads(args.threads)
    parts, results, tables = args.parts.split(","), dict[str, Any](), dict[str, str]()
    small = small_models(args) if {"loss", "passkey"} & set(parts) else []
    if "loss" in parts:
        readers = [bundled(args.longest, args.texts), *small]
        results["loss"] = [row for reader in readers for row in quality(reader, "loss", args)]
        tables["loss"] = quality_table(results["loss"], ".2f")
    if "passkey" in parts:
        results["passkey"] = [row for reader in small for row in quality(reader, "passkey", args)]
        tables["passkey"] = quality_table(results["passkey"], ".0%")
    if "cost" in parts:
        results["cost"] = cost(args)
        tables["cost"] = cost_table(results["cost"])
    for part, table in tables.items():
        print(f"\n{part}\n\n{table}")
        for page in ("long-context.md", "long-context.zh-CN.md") if args.docs else ():
            put(HERE.parent / "docs" / page, part, table)
    if args.json:
        write_json(args.json, {"machine": machine(), "torch": torch.__version__, **results})
    if args.svg:
        draw(results, args.svg)
    if "cost" in results:
        print("worst ratio: {:.2f} ({})".format(*worst_ratio(results["cost"]["rows"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
