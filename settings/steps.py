"""Names of the pipeline's steps, available without importing TFX."""

from __future__ import annotations

# In execution order.
STEPS = (
    "ImportExampleGen",
    "ImportSchemaGen",
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
