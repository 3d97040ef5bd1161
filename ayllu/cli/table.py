"""The table of commands. A row names a module and a function that are imported only when the command runs.

A command is a plain function with Typer annotations in `ayllu/cli/<family>.py`; its docstring is its help page.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One command: where its function lives and the line shown in the list."""

    module: str
    function: str
    help: str


class Family(NamedTuple):
    """A command with sub-commands: `ayllu tokenizer train`."""

    help: str
    rows: dict[str, Row]


COMMANDS: dict[str, Row | Family] = {
    "generate": Row("ayllu.cli.generate", "generate", "Continue a text."),
    "chat": Row("ayllu.cli.chat", "chat", "Talk with a model in the terminal."),
    "write": Row("ayllu.cli.write", "write", "Write a text from a brief, with outline and checks."),
    "ask": Row("ayllu.cli.ask", "ask", "Answer questions from documents, with checked citations."),
    "documents": Family("Collections of documents. Example: ayllu documents add handbook.sqlite handbook/", {
        "add": Row("ayllu.cli.documents", "add", "Read files and folders into a collection."),
        "update": Row("ayllu.cli.documents", "update", "Read again what changed, forget what is gone."),
        "remove": Row("ayllu.cli.documents", "remove", "Forget documents."),
        "list": Row("ayllu.cli.documents", "list_documents", "Show what a collection holds, and what was left out."),
        "search": Row("ayllu.cli.documents", "search", "Find passages."),
    }),
    "search": Row("ayllu.cli.search", "search", "Find pictures and sounds by words, or by a picture."),
    "serve": Row("ayllu.cli.serve", "serve", "Serve a model over the APIs of OpenAI, Anthropic and Ollama."),
    "support": Row("ayllu.cli.support", "support", "Answer customers from your pages; try the sample shop."),
    "key": Row("ayllu.cli.serve", "key", "Make an API key for `ayllu serve`."),
    "translate": Row("ayllu.cli.translate", "translate", "Translate pages and files; only the words change."),
    "next": Row("ayllu.cli.generate", "next_token", "Show what may come next, with probabilities."),
    "walk": Row("ayllu.cli.walk", "walk", "Go through one real run step by step, with shapes and values."),
    "info": Row("ayllu.cli.info", "info", "Show a model's shape, parameters, memory and licence."),
    "tokenizer": Family("Train tokenizers, extend and compare them.", {
        "train": Row("ayllu.cli.tokenizer", "train", "Train a byte-fallback BPE tokenizer from text files."),
        "extend": Row("ayllu.cli.extend", "extend", "Add pieces for another language to a model and its tokenizer."),
        "report": Row("ayllu.cli.tokenizer", "report", "Compare tokenizers: bytes per token for each language."),
    }),
    "download": Row("ayllu.cli.convert", "download", "Fetch a model from the Hugging Face hub, with its licence."),
    "convert": Row("ayllu.cli.convert", "convert", "Convert a checkpoint to another format and check the result."),
    "merge": Row("ayllu.cli.merge", "merge", "Add an adapter to its base's weights, with a check."),
    "data": Family("Prepare training data, look at it, check it. Example: ayllu data prepare texts/ --out clean", {
        "prepare": Row("ayllu.cli.data", "prepare", "Clean texts, drop doubles, and write shards of token ids."),
        "inspect": Row("ayllu.cli.inspect", "inspect", "Show what the model will really see: tokens, masks, loss."),
        "verify": Row("ayllu.cli.data", "verify", "Check that prepared data is still what was written."),
    }),
    "pretrain": Row("ayllu.cli.pretrain", "pretrain", "Train a model from a recipe."),
    "sft": Row("ayllu.cli.sft", "sft", "Teach a model by conversations (fine-tuning)."),
    "prefer": Row("ayllu.cli.prefer", "prefer", "Teach a model which of two answers is better (DPO and others)."),
    "grpo": Row("ayllu.cli.grpo", "grpo", "Teach a model by rewards for its own answers (GRPO)."),
    "evaluate": Row("ayllu.cli.evaluate", "evaluate", "Score a model on tasks, with intervals."),
    "compare": Row("ayllu.cli.compare", "compare", "Say which of two models is better, and how sure that is."),
    "align": Row("ayllu.cli.align", "align", "Teach a model to see or hear, from media with texts."),
    "train-head": Row("ayllu.cli.heads", "train_head", "Train a classifier on labelled rows, and measure it."),
    "classify": Row("ayllu.cli.heads", "classify", "Label texts with a trained head."),
    "fewshot": Row("ayllu.cli.fewshot", "fewshot", "Measure a model on few labelled rows, in many draws."),
    "analyse": Row("ayllu.cli.analyse", "analyse", "Say what posts feel and speak of, in a report."),
    "report": Row("ayllu.cli.report", "report", "Draw a training run as one page: curves, samples, settings."),
    "doctor": Row("ayllu.cli.doctor", "doctor", "Check this machine: what works and fits, how to fix the rest."),
}
