"""Builds a request for the serving client, and runs the client in a separate process."""

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
    # The examples have no label, since the clients of a model server have none to send.
    unlabelled = [
        tf.train.Example(
            features=tf.train.Features(
                feature={features.IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
            )
        ).SerializeToString()
        for image in images
    ]
    return {
        "examples": [example.hex() for example in unlabelled],
        "image_bytes": [image.hex() for image in images],
        "class_names": list(class_names),
    }


def ask(model_directory: str, request: dict[str, Any]) -> dict[str, Any]:
    """Runs the serving client in a process that cannot import this project's code.

    Args:
      model_directory: path of the SavedModel.
      request: from `read_request`.

    Returns:
      The result of `client.check`; if the process fails or times out, only `problems`, with the reason.
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
        except subprocess.TimeoutExpired:
            return {
                "problems": [
                    f"the process that loads the model did not answer within {_TIMEOUT_SECONDS} seconds"
                ]
            }
    if process.returncode != 0:
        last_line = (process.stderr.strip().splitlines() or ["it printed no error message"])[-1]
        return {
            "problems": [
                f"the process that loads the model exited with status {process.returncode}: {last_line}"
            ]
        }
    return json.loads(process.stdout.strip().splitlines()[-1])
