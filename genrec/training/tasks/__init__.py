"""Alignment tasks: a pretrained decoder learns the codes as words of its language (LC-Rec, arXiv 2311.09049)."""
