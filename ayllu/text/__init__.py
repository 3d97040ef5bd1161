"""Text and ids: tokenizers, chat templates, streaming decode. Free of torch."""
