"""The chat formats that Ayllu knows by name, as Jinja templates that any other program can use too."""

# Touvron et al. 2023, Llama 2: the system text goes into the first user turn, each pair of turns is a text of its own
# with BOS and EOS; here [INST] and <<SYS>> are ordinary text.
LLAMA2 = """\
{%- if messages and messages[0]['role'] == 'system' -%}
  {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}
  {%- set turns = messages -%}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn['role'] != ('user' if loop.index0 is even else 'assistant') -%}
    {{- raise_exception('Llama 2 chats alternate: an optional system message, then user, assistant, user, ...') -}}
  {%- endif -%}
  {%- if turn['role'] == 'user' -%}
    {{- bos_token + '[INST] ' + ((system if loop.first else '') + turn['content']) | trim + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + turn['content'] | trim + ' ' + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""

# Llama 3's model card: a header names the speaker, <|eot_id|> ends the turn.
LLAMA3 = """\
{{- bos_token -}}
{%- for turn in messages -%}
  {{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' + turn['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

# ChatML (OpenAI), as Qwen, SmolLM2 and many others use it, with content left as it is and no BOS.
CHATML = """\
{%- for turn in messages -%}
  {{- '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

FORMATS = {"llama2": LLAMA2, "llama3": LLAMA3, "chatml": CHATML}
NEEDS = {"llama2": (), "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
         "chatml": ("<|im_start|>", "<|im_end|>")}        # control tokens without which the format is mere letters

LLAMA2_MARKUP = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
