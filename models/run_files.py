"""Names of the files and folders that the Trainer writes to a ModelRun artifact."""

HISTORY = "history.json"
HYPERPARAMETERS = "hyperparameters.json"
ENVIRONMENT = "environment.json"
TENSORBOARD = "tensorboard"
