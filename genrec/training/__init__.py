"""Training the language model: examples, the Hugging Face Trainer, resume."""
