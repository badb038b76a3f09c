"""Runs the serving client in a clean process and turns its answer into a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from components.serving_check import client
from datasets import features

# The file that keeps the answer.
ANSWER = "serving_check.json"
# Loading TensorFlow takes some ten seconds; a model that needs minutes for a few images does not serve.
_TIMEOUT_SECONDS = 300


def read_request(files: Sequence[str], class_names: Sequence[str], count: int) -> dict[str, Any]:
    """Takes the first `count` examples of TFRecord files (gzip) as a request for `client`."""
    records = tf.data.TFRecordDataset(list(files), compression_type="GZIP").take(count)
    images = [
        tf.train.Example.FromString(record).features.feature[features.IMAGE].bytes_list.value[0]
        for record in records.as_numpy_iterator()
    ]
    # A server's clients have no label to send.
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
    """Asks the model in a process that has none of this project's code.

    Args:
      model_directory: of the SavedModel.
      request: from `read_request`.

    Returns:
      `client.check`'s answer; a process that dies or hangs is a problem in it like any other.
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
            return {"problems": [f"no answer within {_TIMEOUT_SECONDS} seconds"]}
    if process.returncode != 0:
        last_line = (process.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {
            "problems": [f"the process that loaded the model ended with {process.returncode}: {last_line}"]
        }
    return json.loads(process.stdout.strip().splitlines()[-1])
