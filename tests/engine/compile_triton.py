"""Compiles the kernels for GPUs that aren't here; prints what came of it as one line of JSON."""

import json

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ayllu.engine.paged_triton import _attend, _join, block_of
from ayllu.engine.pointwise_triton import _gate, _norm, _turn

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def compiled(kernel, types, numbers, capability, **options):
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    types = {**types, **dict.fromkeys(numbers, "constexpr")}
    source = ASTSource(kernel, types, constexprs=numbers, attrs=aligned)             # as torch's tensors are
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def attend(capability, dtype, is_decode):
    """Llama 3 8B's heads with int8 pages over parts, or Llama 2 7B's in chunks with a window."""
    options = block_of(DTYPES[dtype], 16 if is_decode else 64)
    numbers = {"H": 32, "K": 8 if is_decode else 32, "E": 128, "E2": 128, "PAGE": 16,
               "WINDOW": 0 if is_decode else 4096, "N_PARTS": 8 if is_decode else 1, "IS_INT8": is_decode,
               "IS_WIDE": False, "Q": 16 if is_decode else 64, "S": options.pop("S")}
    pages, scales, found = ("*i8", "*fp32", "*fp32") if is_decode else (f"*{dtype}",) * 3
    types = {"q": f"*{dtype}", "y": found, "peaks": found, "keys": pages, "key_scales": scales, "values": pages,
             "value_scales": scales, "tiles": "*i32", "table": "*i32", "q_stride": "i32", "line_stride": "i32",
             "page_stride": "i32", "factor": "fp32"}
    kernel = compiled(_attend, types, numbers, capability, **options)
    return {"dtype": dtype, "capability": capability, "shared": kernel.metadata.shared,
            "bytes": len(kernel.asm["cubin"]), "has_tensor_cores": "mma" in kernel.asm["ptx"]}


def pointwise(capability, dtype):
    """Llama 2 7B's."""
    x = f"*{dtype}"
    compiled(_norm, {"x": x, "weight": x, "y": x, "eps": "fp32"}, {"D": 4096, "D2": 4096}, capability, num_warps=8)
    compiled(_turn, {"x": x, "cos": x, "sin": x, "stride": "i32"}, {"H": 64, "E": 128, "HALF2": 64, "BLOCK": 8},
             capability)
    compiled(_gate, {"both": x, "y": x}, {"F": 11008, "BLOCK": 1024}, capability)


if __name__ == "__main__":
    for capability in (80, 90):
        for dtype in (*DTYPES, "fp16"):
            pointwise(capability, dtype)
        compiled(_join, {"parts": "*fp32", "peaks": "*fp32", "y": "*bf16", "tiles": "*i32"},
                 {"H": 32, "E": 80, "N_PARTS": 8, "E2": 128}, capability)
    print(json.dumps([attend(capability, dtype, is_decode) for capability in (80, 90) for dtype in DTYPES
                      for is_decode in (True, False)]))
