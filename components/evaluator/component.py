"""The Evaluator as a TFX component."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.evaluator import executor


class Evaluator(tfx.components.Evaluator):
    """TFX's Evaluator with the executor of this project; its inputs, outputs and properties are TFX's."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
