"""What the model does, made visible."""
