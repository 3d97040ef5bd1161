"""The tables of docs/scale.md and its Chinese twin, computed by ayllu/model/spread.py: `python docs/scale_tables.py`.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; `--check` compares instead of writing.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ayllu.model.account import n_parameters, training_flops
from ayllu.model.config import LlamaConfig
from ayllu.model.presets import preset
from ayllu.model.spread import Machine, Ranks, Spread, spread

DOCS = Path(__file__).parent
PAGES = {"scale.md": 0, "scale.zh-CN.md": 1}             # and the number of the language
MODELS = {"llama2-7b": "7B", "llama2-70b": "70B"}
ROWS, CONTEXT, TOKENS = 1024, 4096, 2e12                 # Llama 2: 4 million tokens a step, 2 trillion in all
LIMIT = 0.9 * Machine().memory
GPUS = (8, 16, 32, 64, 128, 256, 512)
YES, NO = ("yes", "是"), ("no", "否")
Row = list[str | tuple[str, str]]                        # a tuple: English and Chinese


def plan(config: LlamaConfig, gpus: int, tensor: int, recomputes: bool) -> tuple[Ranks, Spread]:
    """The largest micro-batch of 1, 2 and 4 rows that fits, or one row."""
    data = gpus // tensor
    found = [Ranks(data, tensor, ROWS, rows, CONTEXT, recomputes=recomputes) for rows in (4, 2, 1)
             if rows * data <= ROWS]
    fitting = [ranks for ranks in found if spread(config, ranks).memory <= LIMIT]
    ranks = (fitting or found[-1:])[0]
    return ranks, spread(config, ranks)


def layouts(name: str) -> Iterator[tuple[Ranks, Spread]]:
    """What the tables show: shares alone, with activations kept or recomputed, and shares with eight tensor ranks."""
    for gpus in GPUS:
        for tensor, recomputes in ((1, False), (1, True), (8, True)):
            yield plan(preset(name), gpus, tensor, recomputes)


def state() -> list[Row]:
    """What lies on each GPU whatever the batch is, with all weights on each and in shares."""
    rows: list[Row] = [[("Model", "模型"), ("Parameters", "参数"), ("Whole on each GPU", "每块 GPU 都有全部"),
                        *[(f"In {n} shares", f"分成 {n} 份") for n in (8, 64, 512)]]]
    for name, short in MODELS.items():
        whole = [spread(preset(name), Ranks(n, 1, ROWS, 1, CONTEXT)) for n in (1, 8, 64, 512)]
        rows.append([short, f"{n_parameters(preset(name)):,}",
                     *[f"{_gb(s.weights + s.gradients + s.moments)} GB" for s in whole]])
    return rows


def memory(name: str) -> list[Row]:
    """Gigabytes of each GPU."""
    rows: list[Row] = [["GPU", ("data × tensor", "数据 × 张量"), ("Recomputed", "重算"), ("Rows at once", "同时行数"),
                        ("State", "状态"), ("Gathered", "收集"), ("Kept", "保留"), ("At work", "运算"),
                        ("All", "合计"), ("Fits 80 GB", "放得进 80 GB")]]
    for ranks, s in layouts(name):
        rows.append([*_head(ranks), _gb(s.weights + s.gradients + s.moments), _gb(s.gathered), _gb(s.kept),
                     _gb(s.working), _gb(s.memory), YES if s.memory <= LIMIT else NO])
    return rows


def seconds(name: str) -> list[Row]:
    """Bytes and seconds of a step, for what fits."""
    rows: list[Row] = [["GPU", ("data × tensor", "数据 × 张量"), ("Recomputed", "重算"), ("Rows at once", "同时行数"),
                        ("Sent over data", "数据方向发送"), ("Sent over tensor", "张量方向发送"), ("Computing", "计算"),
                        ("Data", "数据"), ("Tensor", "张量"), ("Step", "一步"), "MFU", ("Days", "天数")]]
    for ranks, s in layouts(name):
        if s.memory <= LIMIT:
            days = TOKENS / (ROWS * CONTEXT) * s.step_s / 86_400
            rows.append([*_head(ranks), f"{_gb(s.sent_data)} GB", f"{_gb(s.sent_tensor)} GB",
                         *[f"{t:.2f} s" for t in (s.compute_s, s.data_s, s.tensor_s, s.step_s)], f"{s.mfu:.1%}",
                         f"{days:,.0f}"])
    return rows


def machine() -> list[Row]:
    """What is assumed of the machines."""
    m = Machine()
    return [[("Setting", "设置"), ("Value", "值"), ("Where from", "来源")],
            ["`plan.machine.flops`", f"{m.flops / 1e12:.0f} Tflop/s", ("data sheet: dense bfloat16",
                                                                     "数据表：稠密 bfloat16")],
            ["`plan.machine.memory`", f"{m.memory / 1e9:.0f} GB", ("data sheet", "数据表")],
            ["`plan.machine.nvlink`", f"{m.nvlink / 1e9:.0f} GB/s", ("data sheet, each way", "数据表，单向")],
            ["`plan.machine.network`", f"{m.network / 1e9:.0f} GB/s", ("400 Gb/s InfiniBand for each GPU, each way",
                                                                      "每块 GPU 一条 400 Gb/s InfiniBand，单向")],
            ["`plan.machine.share`", f"{m.share:.0%}", ("assumed, see below", "假设，见下文")],
            ["`plan.machine.hop_s`", f"{m.hop_s * 1e6:.0f} µs", ("assumed", "假设")],
            ["`plan.machine.watts`", f"{m.watts:.0f} W", ("data sheet: the GPU's limit", "数据表：GPU 的上限")]]


def published() -> list[Row]:
    """The assumed share beside what was published for a run like it."""
    eight = preset("llama3.1-8b")
    runs = [spread(eight, Ranks(8, 1, 16, 2, 8192, recomputes=r)) for r in (True, False)]
    speeds = [2 * 8192 / s.step_s for s in runs]
    shown = 5762 * training_flops(eight, 8192) / Machine().flops
    return [[("Llama 3.1 8B, 8 H100, rows of 8,192", "Llama 3.1 8B，8 块 H100，每行 8,192"),
             ("tokens/s and GPU", "每块 GPU 每秒词元"), "MFU"],
            [("formula, all recomputed", "公式，全部重算"), f"{speeds[0]:,.0f}", f"{runs[0].mfu:.1%}"],
            [("torchtitan, a part recomputed", "torchtitan，部分重算"), "5,762", f"{shown:.1%}"],
            [("formula, nothing recomputed", "公式，不重算"), f"{speeds[1]:,.0f}", f"{runs[1].mfu:.1%}"]]


TABLES: dict[str, Callable[[], list[Row]]] = {
    "state": state, "machine": machine, "published": published,
    **{f"memory {short}": partial(memory, name) for name, short in MODELS.items()},
    **{f"seconds {short}": partial(seconds, name) for name, short in MODELS.items()}}


def _head(ranks: Ranks) -> Row:
    return [str(ranks.count), f"{ranks.data} × {ranks.tensor}", YES if ranks.recomputes else NO, str(ranks.micro_batch)]


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f}"


def lines(rows: list[Row], language: int) -> str:
    """Markdown in one language."""
    told = [[cell if isinstance(cell, str) else cell[language] for cell in row] for row in rows]
    told.insert(1, ["---"] * len(told[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in told)


def filled(text: str, language: int) -> str:
    """A page with its tables made anew."""
    return re.sub(r"(<!-- table (.+?) -->\n).*?(<!-- end -->)",
                  lambda found: found[1] + lines(TABLES[found[2]](), language) + "\n" + found[3], text, flags=re.DOTALL)


if __name__ == "__main__":
    for page, language in PAGES.items():
        path = DOCS / page
        before = path.read_text(encoding="utf-8")
        if filled(before, language) != before:
            if "--check" in sys.argv:
                sys.exit(f"{page} is not what ayllu/model/spread.py computes: run python docs/scale_tables.py")
            path.write_text(filled(before, language), encoding="utf-8")
