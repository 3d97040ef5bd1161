"""The script that everybody writes, with only its import line changed. Another model: drop_in.py NAME"""

import sys

from ayllu import LlamaForCausalLM, LlamaTokenizer

name = sys.argv[1] if len(sys.argv) > 1 else "ayllu-mini"   # or "meta-llama/Llama-2-7b-hf", or a folder
tokenizer = LlamaTokenizer.from_pretrained(name)
model = LlamaForCausalLM.from_pretrained(name)

input_ids = tokenizer.encode("我喜欢阅读和编程", return_tensors="pt")
output = model.generate(input_ids, max_length=50, num_return_sequences=5)
for ids in output:
    print(tokenizer.decode(ids, skip_special_tokens=True))
