"""The search for hyperparameters: its space, its algorithms, its state and its results."""
