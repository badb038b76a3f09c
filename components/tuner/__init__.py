"""The component Tuner: the search for hyperparameters, with all its trials as a table."""
