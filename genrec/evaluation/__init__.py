"""Offline evaluation: item-level metrics over the full catalogue, and the baselines that every model must beat."""
