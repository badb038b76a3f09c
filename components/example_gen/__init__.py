"""Brings a dataset directory into the pipeline: its examples and its schema."""
