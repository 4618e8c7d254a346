"""Catalogue-constrained decoding: index, beam search, rules, live catalogue, explanations. docs/decoding.md tells the whole."""
