"""Builds a request for the serving client, runs the client in a separate process, and applies the limits."""

from __future__ import annotations

import json
import os
import signal
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


class NoVerdictError(RuntimeError):
    """The model could not be checked, for a reason that says nothing about it; a repetition may succeed."""


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
      The result of `client.check`, whose problems include the limits that are exceeded; if the model cannot
      be loaded or asked, only `problems`, with the reason.

    Raises:
      NoVerdictError: a signal, the time limit, or a lack of memory or disk space ended the process, or it
        ended before it loaded the model.
    """
    with tempfile.TemporaryDirectory() as directory:
        request_file = Path(directory) / "request.json"
        request_file.write_text(json.dumps(request), encoding="utf-8")
        process = _run_client(model_directory, request_file, directory)
    asked = _last_asked(process.stdout)
    if process.returncode == 0:
        answer = json.loads(process.stdout.strip().splitlines()[-1])
        return {**answer, "problems": [*answer["problems"], *exceeded(answer, limits)]}
    last_line = (process.stderr.strip().splitlines() or ["it printed no error message"])[-1]
    if process.returncode < 0:
        raise _no_verdict(f"was ended by {_name_signal(-process.returncode)}{asked}")
    if process.returncode == client.NO_VERDICT or not asked:
        raise _no_verdict(f"failed{asked}: {last_line}")
    status = process.returncode
    return {"problems": [f"the process that loads the model exited with status {status}{asked}: {last_line}"]}


def _run_client(model_directory: str, request_file: Path, directory: str) -> subprocess.CompletedProcess[str]:
    # -I: no PYTHONPATH, no user site, no current directory on the module path.
    script = str(Path(client.__file__).resolve())
    command = [sys.executable, "-I", script, model_directory, str(request_file)]
    # The client ends when this pipe is closed, even if this process is killed.
    reading, writing = os.pipe()
    try:
        return subprocess.run(
            command,
            cwd=directory,
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _no_verdict(
            f"did not answer within {_TIMEOUT_SECONDS} seconds{_last_asked(error.stdout)}"
        ) from None
    finally:
        os.close(reading)
        os.close(writing)


def _no_verdict(what: str) -> NoVerdictError:
    return NoVerdictError(
        f"the process that loads the model {what}. This says nothing about the model, which is neither "
        "blessed nor refused. The same command checks it again; if the reason is a lack of memory, end other "
        "programs first, or use a machine with more memory"
    )


def _name_signal(number: int) -> str:
    """Returns the name of a signal, with its usual cause."""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
    out_of_memory = " (from the kernel, if the memory was used up)"
    return name + (out_of_memory if number == signal.SIGKILL else "")


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
