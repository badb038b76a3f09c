"""The Pusher as a TFX component."""

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.pusher import executor


class Pusher(tfx.components.Pusher):
    """TFX's Pusher with the executor of this project; its inputs, output and properties are TFX's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
