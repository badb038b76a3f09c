"""Builds a request for the serving client, runs the client in a separate process, and applies the limits."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from components import tfrecords
from components.serving_check import client
from datasets import features
from settings.serving_check import ServingCheckConfig

# File in the blessing artifact that holds the client's answer.
ANSWER = "serving_check.json"
# Loading TensorFlow takes about ten seconds. A model that needs minutes for a few images cannot be served.
_TIMEOUT_SECONDS = 300


def read_request(files: Sequence[str], class_names: Sequence[str], count: int) -> dict[str, Any]:
    """Builds a request for `client` from the first examples of a split.

    Args:
      files: TFRecord files.
      class_names: names of the classes, in the order of the labels.
      count: number of examples.

    Returns:
      The request, in the format that `client` documents.
    """
    records = tfrecords.read(files).take(count)
    images = [
        tf.train.Example.FromString(record).features.feature[features.IMAGE].bytes_list.value[0]
        for record in records.as_numpy_iterator()
    ]
    return {
        "examples": [unlabelled(image).hex() for image in images],
        "image_bytes": [image.hex() for image in images],
        "class_names": list(class_names),
    }


def unlabelled(image: bytes) -> bytes:
    """Returns a serialized tf.train.Example without a label, which the clients of a server do not have."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE: feature}))
    return example.SerializeToString()


def ask(model_directory: str, request: dict[str, Any], limits: ServingCheckConfig) -> dict[str, Any]:
    """Runs the serving client in a process that cannot import this project's code.

    Args:
      model_directory: path of the SavedModel.
      request: from `read_request`.
      limits: what the model may need.

    Returns:
      The result of `client.check`, whose problems include the limits that are exceeded; if the process fails
      or times out, only `problems`, with the reason.
    """
    with tempfile.TemporaryDirectory() as directory:
        request_file = Path(directory) / "request.json"
        request_file.write_text(json.dumps(request), encoding="utf-8")
        # -I: no PYTHONPATH, no user site, no current directory on the module path.
        command = [
            sys.executable,
            "-I",
            str(Path(client.__file__).resolve()),
            model_directory,
            str(request_file),
        ]
        try:
            process = subprocess.run(
                command, cwd=directory, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            return {
                "problems": [
                    f"the process that loads the model did not answer within {_TIMEOUT_SECONDS} seconds"
                    f"{_last_asked(error.stdout)}"
                ]
            }
    if process.returncode != 0:
        last_line = (process.stderr.strip().splitlines() or ["it printed no error message"])[-1]
        return {
            "problems": [
                f"the process that loads the model exited with status {process.returncode}"
                f"{_last_asked(process.stdout)}: {last_line}"
            ]
        }
    answer = json.loads(process.stdout.strip().splitlines()[-1])
    return {**answer, "problems": [*answer["problems"], *exceeded(answer, limits)]}


def exceeded(answer: dict[str, Any], limits: ServingCheckConfig) -> list[str]:
    """Lists the limits that a model exceeds.

    Args:
      answer: from `client.check`.
      limits: what the model may need.

    Returns:
      One line for each limit that is exceeded, with the measured value and the limit.
    """
    measured = [
        ("max_load_seconds", "loading the model took", answer["load_seconds"], "s"),
        ("max_memory_mb", "the process that serves the model needed", answer.get("memory_mb"), "MB"),
    ]
    for signature, latency in answer["latency_ms"].items():
        measured += [
            ("max_p50_ms", f"the median of a single image through {signature} is", latency["p50"], "ms"),
            (
                "max_p99_ms",
                f"the 99th percentile of a single image through {signature} is",
                latency["p99"],
                "ms",
            ),
        ]
    return [
        f"{what} {value:g} {unit}; serving_check.{key} allows {limit:g}"
        for key, what, value, unit in measured
        if (limit := getattr(limits, key)) is not None and value is not None and value > limit
    ]


def figures(answer: dict[str, Any]) -> dict[str, float] | None:
    """Selects the figures that a summary shows.

    Args:
      answer: from `ask`.

    Returns:
      `load_seconds`; `p50_ms` and `p99_ms` of a request with a single encoded image; and `memory_mb`, null
      where the kernel does not say. None if the model did not get so far.
    """
    latency = answer.get("latency_ms", {}).get("serve_image_bytes")
    if latency is None:
        return None
    return {
        "load_seconds": answer["load_seconds"],
        "p50_ms": latency["p50"],
        "p99_ms": latency["p99"],
        "memory_mb": answer["memory_mb"],
    }


def _last_asked(output: bytes | str | None) -> str:
    """Returns what the client tried last, in words to append to a sentence; empty if nothing is known."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    asked = [line for line in text.splitlines() if line.startswith(client.ASKING)]
    return f" when asked: {asked[-1].removeprefix(client.ASKING)}" if asked else ""
