"""Names of the pipeline's steps, available without importing TFX."""

from __future__ import annotations

# In execution order.
STEPS = (
    "Dataset",
    "ImportExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Tuner",
    "Trainer",
    "Baseline",
    "ServingCheck",
    "Evaluator",
    "ModelReport",
    "Pusher",
)
# Steps that only register or look up artifacts, and therefore have no container.
WITHOUT_CONTAINER = ("Dataset", "Baseline")
