"""Asks the exported model for predictions before it may be pushed."""
