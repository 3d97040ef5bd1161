"""Images and sounds: their bytes made harmless, encoders that turn them into features, and their way into a Llama."""
