"""Serving through vLLM: the search runs inside an engine step of stock vLLM, as a pooling model loaded by entry point."""
