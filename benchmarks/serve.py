"""Ayllu's server beside llama.cpp's and transformers' own, in turns, all running: tokens per second and waiting times.

    python benchmarks/serve.py --json serve.json             # both models, 1 to 128 streams
    python benchmarks/serve.py --models bundled --streams 32 # one cell
    python benchmarks/serve.py --quick                       # the bundled model, 8 streams, one round

Each stream asks for 64 tokens after a prompt of 24 words, then again; no two prompts begin alike and no answer ends
early. All servers get two threads, greedy choice, 16-bit weights (bfloat16; F16 with llama.cpp) and as many places as
streams. llama.cpp also runs with Q8_0 weights, shown beside (without its AMX kernel, which crashes); transformers with
and without continuous batching, and the faster counts. The peers' environments are made by the first run; llama.cpp's
server is compiled from the source that llama-cpp-python carries. Ratios are medians over rounds; the goals are 5 times
transformers from 8 streams on, and llama.cpp's F16 at 32 streams; every other cell is shown with a goal of 1 beside
transformers.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from peers import llama_server, machine, python_of
from serve_load import Load, figures, offer

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.load import load_checkpoint
from ayllu.checkpoint.save import save_checkpoint
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.presets import preset

SERVERS = ("ayllu", "llama.cpp F16", "llama.cpp Q8_0", "transformers", "transformers continuous")
CONTEXT = 256                                            # of each place: prompt and answer fit


@dataclass
class Server:
    """A running server: how to ask it."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    fields: dict[str, Any]

    def wait_until_ready(self, limit_s: float = 180) -> None:
        """Until it says that it is well."""
        for _ in range(int(limit_s * 10)):
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with code {self.process.returncode} before it served: see its log")
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise SystemExit(f"{self.name} wasn't ready after {limit_s:.0f} s")

    def wait_until_idle(self, limit_s: float = 120) -> None:
        """Until it has stopped computing, so that the next one has the machine to itself."""
        processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        end = time.perf_counter() + limit_s
        while time.perf_counter() < end:
            before = sum(sum(p.cpu_times()[:2]) for p in processes)
            time.sleep(0.5)
            if sum(sum(p.cpu_times()[:2]) for p in processes) - before < 0.05:
                return
        raise SystemExit(f"{self.name} still computes {limit_s:.0f} s after its last request")

    def stop(self) -> None:
        """End it and wait."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main() -> None:
    """Measure each model at each number of streams."""
    options = _options()
    cells, start = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            files = write_models(model, Path(scratch) / model, options.dtype)
            for streams in options.streams:
                cells += measure(model, files, streams, options, Path(scratch))
    _say(f"{time.perf_counter() - start:.0f} s")
    with_goal = [cell for cell in cells if cell["goal"]]
    if options.json:
        report = {"date": date.today().isoformat(), "machine": machine(), "threads": options.threads,
                  "quick": options.quick, "cells": cells}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not with_goal:
        return
    worst = min(with_goal, key=lambda c: c["ratio"] / c["goal"])
    print(f"worst ratio: {worst['ratio'] / worst['goal']:.2f} "
          f"({worst['model']}, {worst['streams']} streams, tokens/s beside {worst['server']})")


def write_models(name: str, folder: Path, dtype: str) -> dict[str, Path]:
    """The same weights for everybody: a folder in Hugging Face's form, and GGUF files in F16 and Q8_0."""
    bundled = load_checkpoint("ayllu-mini")
    tokenizer = bundled.tokenizer
    assert tokenizer is not None
    model = bundled.model
    if name == "110m":
        config = preset("stories110m").model_copy(update={"vocab_size": bundled.model.config.vocab_size})
        model = Llama(config)
        initialise(model, config.n_layers, seed=0)
    endless = GenerationDefaults(bos_id=tokenizer.bos_id)
    files = {"hf": folder / "hf", "f16": folder / "f16.gguf", "q8_0": folder / "q8_0.gguf"}
    save_checkpoint(files["hf"], model, tokenizer=tokenizer, generation=endless, dtype=dtype)
    for kind, stored in (("f16", "float16"), ("q8_0", "q8_0")):
        save_checkpoint(files[kind], model, tokenizer=tokenizer, generation=endless, to="gguf", dtype=stored)
    return files


def start(name: str, files: dict[str, Path], streams: int, options: argparse.Namespace, log: Path) -> Server:
    """One server on a free port, with a place for each stream."""
    port = _free_port()
    fields: dict[str, Any] = {"model": "m", "ignore_eos": True}
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads),
                   "HF_HUB_OFFLINE": "1"}
    if name == "ayllu":
        command = [sys.executable, "-m", "ayllu", "serve", str(files["hf"]), "--name", "m", "--port", str(port), "-q",
                   "--max-rows", str(streams)]
    elif name.startswith("llama.cpp"):
        command = [str(llama_server()), "-m", str(files["q8_0" if "Q8" in name else "f16"]), "--port", str(port),
                   "-c", str(CONTEXT * streams), "-np", str(streams), "-t", str(options.threads),
                   "-tb", str(options.threads)]
        command += ["--no-repack"] if "Q8" in name else []   # its AMX kernel for Q8_0 crashes on the bundled model
    else:
        command = [str(Path(python_of("transformers")).with_name("transformers")), "serve", str(files["hf"]),
                   "--port", str(port), "--dtype", options.dtype, "--device", "cpu"]
        command += ["--continuous-batching"] if "continuous" in name else []
        fields = {"model": str(files["hf"])}
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    server = Server(name, process, f"http://127.0.0.1:{port}", fields)
    server.wait_until_ready()
    return server


def measure(model: str, files: dict[str, Path], streams: int, options: argparse.Namespace,
            folder: Path) -> list[dict[str, Any]]:
    """Each server's figures at so many streams, and Ayllu's tokens per second over them, by turns."""
    load = Load(streams, rounds=2 if streams < 128 else 1, limit_s=options.limit)
    servers, found = [], dict[str, list[dict[str, float]]]()
    try:
        for name in options.servers:
            servers.append(start(name, files, streams, options, folder / f"{name.replace(' ', '-')}.log"))
            offer(f"{servers[-1].url}/v1/completions", servers[-1].fields, Load(min(streams, 4), 1), seed=0)   # warm
            servers[-1].wait_until_idle()
        for number in range(options.rounds):
            for server in servers[number % len(servers):] + servers[:number % len(servers)]:
                answers, seconds = offer(f"{server.url}/v1/completions", server.fields, load, seed=number + 1)
                server.wait_until_idle()
                found.setdefault(server.name, []).append(figures(answers, seconds, load))
    finally:
        for server in servers:
            server.stop()
    cells = []
    print(f"\n{model}, {streams} streams")
    print("| | tokens/s | Ayllu's over it | first token ms: median, p99 | between tokens ms: median, p99 |\n"
          "|---|---:|---:|---|---|")
    for name, rounds in found.items():
        middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        pairs = zip(found["ayllu"], rounds, strict=True)
        ratio = statistics.median(a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs)
        goal = _goal(name, streams)
        cells.append({"model": model, "streams": streams, "server": name, "ratio": ratio, "goal": goal, **middle})
        late = f" ({middle['unfinished']:.0f} requests broken off)" if middle["unfinished"] else ""
        print(f"| {name}{late} | {middle['tokens_per_s']:,.0f} | {ratio:.2f} | {middle['first_ms']:,.0f}, "
              f"{middle['first_p99_ms']:,.0f} | {middle['between_ms']:,.1f}, {middle['between_p99_ms']:,.1f} |",
              flush=True)
    return cells


def _goal(name: str, streams: int) -> float | None:
    """The ratio that the project asks for; None where it asks for none."""
    if name.startswith("transformers"):
        return 5.0 if streams >= 8 else 1.0
    return 1.0 if name == "llama.cpp F16" and streams == 32 else None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the bundled model, 8 streams, one round, 8 s each")
    parser.add_argument("--models", nargs="*", default=["bundled", "110m"], choices=["bundled", "110m"])
    parser.add_argument("--streams", nargs="*", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--servers", nargs="*", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=30, help="seconds after which a round is broken off")
    parser.add_argument("--dtype", default="bfloat16", help="of Ayllu's and transformers' weights")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.models, options.streams, options.rounds, options.limit = ["bundled"], [8], 1, 8
    options.servers = ["ayllu", *(name for name in options.servers if name != "ayllu")]
    return options


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
