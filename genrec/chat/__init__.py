"""Conversation on top of the recommender: words in, rules and items out, titles from the catalogue only."""
