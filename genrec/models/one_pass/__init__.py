"""One-pass recommenders: an identifier, an attention pattern and a loss, chosen apart from one another."""
