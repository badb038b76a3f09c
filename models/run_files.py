"""Names of what the Trainer leaves in a ModelRun artifact."""

HISTORY = "history.json"
HYPERPARAMETERS = "hyperparameters.json"
ENVIRONMENT = "environment.json"
TENSORBOARD = "tensorboard"
