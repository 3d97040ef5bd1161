"""Live servers of tiny random models, one for each family of chat templates that know tools (and one without)."""

from server.live import serving
from text.tool_templates import FAMILIES

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


def write_model(folder, template, make, context=2048):
    import torch

    from ayllu.checkpoint.generation import GenerationDefaults
    from ayllu.checkpoint.save import save_checkpoint
    from ayllu.model.config import LlamaConfig
    from ayllu.model.init import initialise
    from ayllu.model.llama import Llama

    tokenizer = make()
    config = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64,
                         vocab_size=tokenizer.vocab_size, max_context=context)
    model = Llama(config)
    initialise(model, 2, seed=0)
    with torch.no_grad():                                # tame weights would make every text the same
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    defaults = GenerationDefaults(bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids)
    save_checkpoint(folder, model, tokenizer=tokenizer, generation=defaults, chat_template=template, overwrite=True)
