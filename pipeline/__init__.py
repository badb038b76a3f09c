"""The pipeline: its configuration, its graph, what blesses a model, and how it is run."""
