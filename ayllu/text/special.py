"""The reserved pieces of every tokenizer that Ayllu trains, so that later methods find their ids waiting.

They are SentencePiece control symbols: they have ids, but no text ever turns into them.
"""

PAD = "<pad>"
MASK = "<mask>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"                    # ChatML's turn markers
FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, FIM_END = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_end|>"
SENTINELS = [f"<extra_id_{i}>" for i in range(100)]                     # span corruption (T5)
DENOISERS = ["<|mode_r|>", "<|mode_s|>", "<|mode_x|>"]                  # UL2's regular, sequential, extreme
IMAGE, AUDIO = "<image>", "<audio>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
TOOL_RESPONSE, TOOL_RESPONSE_END = "<tool_response>", "</tool_response>"
SPARE = [f"<|reserved_{i}|>" for i in range(64)]

RESERVED = [PAD, MASK, TURN_START, TURN_END, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE, FIM_END, *SENTINELS, *DENOISERS,
            IMAGE, AUDIO, TOOL_CALL, TOOL_CALL_END, TOOL_RESPONSE, TOOL_RESPONSE_END, *SPARE]
