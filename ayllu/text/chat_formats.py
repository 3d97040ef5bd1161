"""The chat formats that Ayllu knows by name, as Jinja templates that any other program can use too."""

from pathlib import Path

_TURNS = ("<|im_start|>", "<|im_end|>")
NEEDS: dict[str, tuple[str, ...]] = {                    # control tokens without which the format is mere letters
    "llama2": (),                                        # Touvron et al. 2023: BOS and EOS around each pair of turns
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),                # the model card's
    "ayllu": (*_TURNS, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),    # ChatML with tools
    "chatml": _TURNS}                                    # as Qwen and SmolLM2 use it, content as it is and no BOS
FORMATS = {name: (Path(__file__).with_name("formats") / f"{name}.jinja").read_text(encoding="utf-8")
           for name in ("llama2", "llama3", "chatml", "ayllu")}
LLAMA2_MARKUP = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")     # ordinary text to a tokenizer
