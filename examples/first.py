"""The first ten lines: load the model that comes with Ayllu and watch it write."""

import sys

from ayllu import LLM

llm = LLM.load(sys.argv[1] if len(sys.argv) > 1 else "ayllu-mini")
for piece in llm.stream("Once upon a time", max_tokens=60, seed=1):
    print(piece, end="", flush=True)
print()
