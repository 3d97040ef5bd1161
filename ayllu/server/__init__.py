"""HTTP: the APIs of OpenAI, Anthropic and Ollama over one engine."""
