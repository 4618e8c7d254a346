"""Item vectors: from text, from co-occurrence, fused."""
