"""Stops a run before training if its data is faulty."""
