"""The Tuner as a TFX component."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.tuner import executor


class Tuner(tfx.components.Tuner):
    """TFX's Tuner with the executor of this project; its inputs, outputs and properties are TFX's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
