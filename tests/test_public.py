"""The public face: its names, each where it says it is, and nothing heavy before a name is used."""

import subprocess
import sys

import pytest

import ayllu
from ayllu import errors

NAMES = {"__version__", "LLM", "SamplingParams", "LlamaForCausalLM", "LlamaTokenizer", "Llama", "LlamaConfig",
         "image_part", "audio_part"}
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def test_all_names_the_public_face_and_all_errors():
    assert set(ayllu.__all__) == NAMES | ERRORS
    assert set(ayllu.__all__) <= set(dir(ayllu))


@pytest.mark.parametrize("name", sorted(NAMES | ERRORS))
def test_each_name_is_there(name):
    value = getattr(ayllu, name)
    assert value is getattr(ayllu, name)
    assert name == "__version__" or value.__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        ayllu.LLMs  # noqa: B018


def test_import_brings_nothing_heavy():
    code = ("import sys, ayllu; ayllu.ConfigError; "
            "print([m for m in ('torch', 'transformers', 'numpy', 'pydantic') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_text_faces_bring_no_library_that_starting_must_not_wait_for():
    code = ("import sys; from ayllu import LLM, LlamaForCausalLM; "
            "print([m for m in ('transformers', 'matplotlib', 'rich', 'jinja2', 'torch._dynamo') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_and_generating_import_no_compiler(tiny_checkpoint):
    """torch._dynamo and sympy take longer to import than a short answer takes to write."""
    code = ("import sys; from ayllu.cli.main import run; "
            f"run(['generate', 'The fox', '--model', {str(tiny_checkpoint)!r}, '--max-tokens', '3']); "
            "print([m for m in ('torch._dynamo', 'sympy', 'rich', 'jinja2') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
