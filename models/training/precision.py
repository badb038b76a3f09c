"""In which precision a network computes; its weights are float32 always."""

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
# Flags of CPUs that multiply bfloat16 themselves.
_CPU_FLAGS = re.compile(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", re.MULTILINE)
_COMPUTE_CAPABILITY = (8, 0)  # of NVIDIA's GPUs from Ampere on, which do


def resolve(configured: str) -> str:
    """Returns `float32` or `mixed_bfloat16`.

    Args:
      configured: one of them, or `auto`: bfloat16 where all GPUs, or without a GPU the CPU, multiply it
        themselves. Elsewhere it is emulated, and slower than float32.
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
    """Builds layers under a dtype policy, such as `mixed_bfloat16`, and restores the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a network with the same weights that computes in float32, on any hardware alike.

    Args:
      model: of layers, some of which may be models of layers.
    """

    def layer_in_float32(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": FLOAT32})

    copy = keras.models.clone_model(model, clone_function=layer_in_float32, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
