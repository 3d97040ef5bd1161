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

# ChatML with tools, for vocabularies that hold the marks of special.py; without tools it writes what CHATML writes.
AYLLU = """\
{%- set has_system = messages and messages[0]['role'] == 'system' -%}
{%- if tools -%}
  {{- '<|im_start|>system\\n' + (messages[0]['content'] + '\\n\\n' if has_system else '') + 'Tools:\\n' -}}
  {%- for tool in tools -%}
    {{- tool['function'] | tojson + '\\n' -}}
  {%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for turn in (messages[1:] if tools and has_system else messages) -%}
  {{- '<|im_start|>' + turn['role'] + '\\n' -}}
  {%- if turn['role'] == 'tool' -%}
    {{- '<tool_response>\\n' + turn['content'] + '\\n</tool_response>' -}}
  {%- else -%}
    {{- turn['content'] or '' -}}
  {%- endif -%}
  {%- for call in turn['tool_calls'] or [] -%}
    {{- '\\n' if turn['content'] or not loop.first -}}
    {{- '<tool_call>\\n{"name": "' + call['function']['name'] + '", "arguments": ' -}}
    {{- call['function']['arguments'] | tojson + '}\\n</tool_call>' -}}
  {%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

FORMATS = {"llama2": LLAMA2, "llama3": LLAMA3, "chatml": CHATML, "ayllu": AYLLU}
_TURNS = ("<|im_start|>", "<|im_end|>")
NEEDS = {"llama2": (), "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
         "ayllu": (*_TURNS, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
         "chatml": _TURNS}                               # control tokens without which the format is mere letters

LLAMA2_MARKUP = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
