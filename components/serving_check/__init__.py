"""Requests predictions from the exported model; only a model that answers correctly may be pushed."""
