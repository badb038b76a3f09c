"""Compares the logged requests of a model with images of its test split: `python -m serving.drift`."""
