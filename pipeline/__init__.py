"""The pipeline: its graph, its runners, and how they are called."""
