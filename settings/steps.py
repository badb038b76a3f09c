"""The steps of the pipeline by name, known without importing TFX."""

from __future__ import annotations

# In the order in which they run.
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
