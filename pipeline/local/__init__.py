"""Runs the pipeline on this machine."""
