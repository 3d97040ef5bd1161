"""Each number in docs/faq.md and its Chinese twin is computed again from the shapes; published ones are constants."""

from pathlib import Path

import pytest

from ayllu.model import account
from ayllu.model.presets import preset

DOCS = Path(__file__).parents[2] / "docs"
MODELS = ("llama2-7b", "llama2-13b", "llama2-70b")
GIB = 2**30
# Llama 2 (arXiv:2307.09288): table 2 GPU hours, table 1 tokens; the A100's peak in bfloat16 is in its data sheet
GPU_HOURS = {"llama2-7b": 184_320, "llama2-13b": 368_640, "llama2-70b": 1_720_320}
TOKENS, CONTEXT, A100_FLOPS, A100_BYTES = 2e12, 4096, 312e12, 80e9


def q4_0_bytes(config) -> float:
    """GGUF Q4_0: 32 weights in 18 bytes; norms in float32."""
    vectors = sum(part.parameters for part in account.parts(config) if part.name == "norms")
    return (account.n_parameters(config) - vectors) * 18 / 32 + 4 * vectors


def gib(n: float) -> str:
    return f"{n / GIB:,.1f} GiB" if n < 100 * GIB else f"{n / GIB:,.0f} GiB"


def training_operations(name: str) -> float:
    return account.training_flops(preset(name), CONTEXT) * TOKENS


def cells(row: str, name: str) -> str:
    config = preset(name)
    match row:
        case "parameters":
            return f"{account.n_parameters(config):,}"
        case "float32" | "bfloat16" | "q8_0":
            return gib(account.weight_bytes(config, row))
        case "q4_0":
            return gib(q4_0_bytes(config))
        case "kv":
            return f"{account.kv_bytes(config, 'bfloat16') / 1024:.0f} KiB"
        case "kv full":
            return gib(account.kv_bytes(config, "bfloat16") * CONTEXT)
        case "run":
            return gib(account.inference_memory(config, "bfloat16", CONTEXT).total)
        case "lora":
            return gib(account.lora_memory(config, 1024, 1).total)
        case "full":
            return gib(account.training_memory(config, 1024, 1).total)
        case "flops":
            mantissa, exponent = f"{training_operations(name):.2e}".split("e+")
            return f"{mantissa} × 10^{exponent}"
        case "hours":
            return f"{GPU_HOURS[name]:,}"
        case "years":
            return f"{GPU_HOURS[name] / (24 * 365.25):.0f}"
        case "share":
            return f"{training_operations(name) / (GPU_HOURS[name] * 3600 * A100_FLOPS):.0%}"
    raise AssertionError(row)


LABELS = {
    "parameters": ("Parameters", "参数"),
    "float32": ("Weights in float32", "float32 权重"),
    "bfloat16": ("Weights in bfloat16", "bfloat16 权重"),
    "q8_0": ("Weights in 8 bits (GGUF Q8_0)", "8 位权重（GGUF Q8_0）"),
    "q4_0": ("Weights in 4 bits (GGUF Q4_0)", "4 位权重（GGUF Q4_0）"),
    "kv": ("Key/value cache for each token, bfloat16", "每个词元的键值缓存，bfloat16"),
    "kv full": ("Cache of 4,096 tokens, bfloat16", "4,096 个词元的缓存，bfloat16"),
    "run": ("To run in bfloat16 with 4,096 tokens", "以 bfloat16 运行 4,096 个词元"),
    "lora": ("To adapt with LoRA, bfloat16, 1 × 1,024 tokens", "用 LoRA 适配，bfloat16，1 × 1,024 个词元"),
    "full": ("To train in full with AdamW, 1 × 1,024 tokens", "用 AdamW 训练全部参数，1 × 1,024 个词元"),
    "flops": ("Operations, computed", "运算次数，计算得出"),
    "hours": ("A100 GPU-hours, published", "A100 GPU 小时，公开数据"),
    "years": ("That is, in years of one GPU", "折合单块 GPU 的年数"),
    "share": ("Operations as a share of the A100's peak", "运算次数占 A100 峰值的比例"),
}


@pytest.mark.parametrize(("page", "language"), [("faq.md", 0), ("faq.zh-CN.md", 1)])
@pytest.mark.parametrize("row", LABELS)
def test_each_row_is_computed(page, language, row):
    line = f"| {LABELS[row][language]} | " + " | ".join(cells(row, name) for name in MODELS) + " |"
    assert line in (DOCS / page).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", ["faq.md", "faq.zh-CN.md"])
def test_no_row_without_a_computation(page):
    rows = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    labels = {label for pair in LABELS.values() for label in pair} | {"", "---"}
    assert [row for row in rows if row.split("|")[1].strip() not in labels] == []


def test_what_one_a100_does():
    """The sentence: one A100 with 80 GB runs 7B and 13B and adapts either with LoRA, and trains neither in full."""
    for name in MODELS[:2]:
        config = preset(name)
        assert account.inference_memory(config, "bfloat16", CONTEXT).total < A100_BYTES
        assert account.lora_memory(config, 1024, 1).total < A100_BYTES < account.training_memory(config, 1024, 1).total
    assert account.weight_bytes(preset("llama2-70b"), "bfloat16") > A100_BYTES > q4_0_bytes(preset("llama2-70b"))
