"""Stops the run on data that cannot be trained on."""
