"""Names of the pipeline's steps, available without importing TFX."""

from __future__ import annotations

# In execution order.
STEPS = (
    "ImportExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Tuner",
    "Trainer",
    "Baseline",
    "Evaluator",
    "ModelReport",
    "ServingCheck",
    "Pusher",
)
