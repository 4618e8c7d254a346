"""Serving: an engine that batches searches, an HTTP API around it, and what they keep on disk."""
