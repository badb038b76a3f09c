"""Reads ML Metadata: runs, artifacts, and what came of what; `python -m lineage --help`."""
