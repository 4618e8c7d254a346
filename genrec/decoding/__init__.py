"""Catalogue-constrained decoding: the index of code tuples and the beam search over it."""
