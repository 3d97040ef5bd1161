"""Live servers of tiny random models, one for each family of chat templates that know tools (and one without)."""

import json

import jsonschema
import pytest
from server.live import serving
from text.tool_templates import FAMILIES
from untamed import untamed

from ayllu.checkpoint.generation import GenerationDefaults
from ayllu.checkpoint.save import save_checkpoint
from ayllu.model.config import LlamaConfig

CHAT = [{"role": "user", "content": "Count the foxes."}]
SCHEMA = {
    "note": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 12},
                                              "kind": {"enum": ["fox", "小鸟"], "description": "Which animal."}},
             "required": ["text"]},
    "count": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99},
                                               "exact": {"type": "boolean"}}, "required": ["n", "exact"]},
}
TOOLS = [{"type": "function", "function": {"name": "note", "description": "Writes down a note.",
                                           "parameters": SCHEMA["note"]}},
         {"type": "function", "function": {"name": "count", "parameters": SCHEMA["count"], "strict": True}}]


def tooled(family, folder, **options):
    """A server of this family's template and vocabulary."""
    write_model(folder, *FAMILIES[family])
    return serving(folder, engine={"cache_mib": 8}, **options)


def live_families(first, *others):
    """The fixture `live` of a file: such a server for one family, and for the others where slow tests run."""
    @pytest.fixture(scope="module", params=[first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)])
    def live(request, tmp_path_factory):
        with tooled(request.param, tmp_path_factory.mktemp("model")) as found:
            found.family = request.param
            yield found

    return live


def fits(name, arguments):
    """Whether arguments, as JSON or read, are what the tool of that name takes."""
    jsonschema.validate(json.loads(arguments) if isinstance(arguments, str) else arguments, SCHEMA[name])
    return True


def write_model(folder, template, make, context=2048):
    tokenizer = make()
    config = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64,
                         vocab_size=tokenizer.vocab_size, max_context=context)
    defaults = GenerationDefaults(bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids)
    save_checkpoint(folder, untamed(config), tokenizer=tokenizer, generation=defaults, chat_template=template,
                    overwrite=True)
