"""Inference: from the text face (llm.py) down to the runners."""
