"""The metrics that are measured on the test split, and the gates that decide whether a model is blessed."""
