"""The precision in which a network computes; its weights are always float32."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

FLOAT32 = "float32"
MIXED_BFLOAT16 = "mixed_bfloat16"
AUTO = "auto"

_CPU_INFO = Path("/proc/cpuinfo")
# Flags of CPUs that multiply bfloat16 in hardware.
_CPU_FLAGS = re.compile(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", re.MULTILINE)
# Lowest compute capability of NVIDIA GPUs that multiply bfloat16 in hardware: Ampere.
_COMPUTE_CAPABILITY = (8, 0)


def resolve(configured: str) -> str:
    """Returns the precision for this machine.

    Args:
      configured: `float32`, `mixed_bfloat16` or `auto`. `auto` is `mixed_bfloat16` if all GPUs, or the CPU of
        a machine without GPUs, multiply bfloat16 in hardware. Elsewhere bfloat16 is emulated, which is slower
        than float32.

    Returns:
      `float32` or `mixed_bfloat16`.
    """
    if configured != AUTO:
        return configured
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if gpus:
        fast = all(each.get("compute_capability", (0, 0)) >= _COMPUTE_CAPABILITY for each in details)
    else:
        fast = _CPU_INFO.exists() and bool(_CPU_FLAGS.search(_CPU_INFO.read_text()))
    return MIXED_BFLOAT16 if fast else FLOAT32


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Sets Keras' dtype policy, such as `mixed_bfloat16`, and restores the previous one on exit."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a copy of a network, with the same weights, that computes in float32 on any hardware.

    Args:
      model: the network; nested models are copied, too.
    """

    def layer_in_float32(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": FLOAT32})

    copy = keras.models.clone_model(model, clone_function=layer_in_float32, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
