"""Writes the formats of an exported model that agree with it, and describes all of them."""

from __future__ import annotations

import dataclasses
import json
import posixpath
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from components.serving_check.formats import conversion, files, program
from models import preprocessing
from settings.export import ExportConfig, Format

_MEASURED = ("accuracy", "agreement", "milliseconds", "bytes")
_PROJECT = Path(__file__).resolve().parents[3]


def write(
    model_directory: str,
    directory: str,
    config: ExportConfig,
    class_names: Sequence[str],
    test_files: Sequence[str],
    calibration_files: Sequence[str],
) -> dict[str, Any]:
    """Converts an exported model to the configured formats, and keeps those that agree with it.

    Args:
      model_directory: a SavedModel of `models.export`.
      directory: folder of the version, or URI, below which the folder `formats` is written.
      config: the formats, and how well they must agree.
      class_names: names of the classes in the order of their labels; written to `formats/labels.txt`.
      test_files: TFRecord files of the examples on which the formats are compared with the SavedModel; of
        more than 10,000 examples, every n-th is used.
      calibration_files: TFRecord files of examples for the calibration of `tflite_int8`; not those of the
        test split.

    Returns:
      The content of `formats/formats.json`: `input` and `output`, which describe the only input and output
      of each format; `views`, 1; `images`, the number of examples that were compared, of `available`;
      `left_out`, a sentence for each format that is left out; and `models`, a list. Each of its elements has
      the `name` of a format, or `saved_model`, or `saved_model_one_view` if the SavedModel averages several
      views; `file`, its path in `directory`; `problem`, why it was left out; `accuracy` and `agreement`, both
      from 0 to 1; `milliseconds` for one image on one core; and `bytes`. Values that do not apply or are not
      known are None.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = _run(
            program.Request(
                model_directory=model_directory,
                directory=folder,
                formats=config.formats,
                views=config.views,
                test_files=tuple(test_files),
                calibration_files=tuple(calibration_files),
            )
        )
        description = _describe(answer, config, len(class_names))
        fileio.makedirs(posixpath.join(directory, files.FOLDER))
        for model in description["models"]:
            if model["file"]:
                source = str(Path(folder) / posixpath.basename(model["file"]))
                fileio.copy(source, posixpath.join(directory, model["file"]))
    for name, text in (
        (files.LABELS, "".join(f"{name}\n" for name in class_names)),
        (files.DESCRIPTION, json.dumps(description, indent=2) + "\n"),
    ):
        with fileio.open(posixpath.join(directory, name), "w") as file:
            file.write(text)
    return description


def _run(request: program.Request) -> dict[str, Any]:
    """Runs the program; if it fails, its answer has the reason as the problem of each format."""
    file = Path(request.directory) / "request.json"
    file.write_text(json.dumps(dataclasses.asdict(request)), encoding="utf-8")
    command = [sys.executable, "-m", program.__name__, str(file)]
    # The standard output, the progress, goes where that of this process goes.
    process = subprocess.run(command, cwd=_PROJECT, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode == 0:
        return json.loads((Path(request.directory) / program.ANSWER).read_text(encoding="utf-8"))
    sys.stderr.write(process.stderr)
    last_line = (process.stderr.strip().splitlines() or ["it printed no error message"])[-1]
    reason = f"the program that converts the model exited with status {process.returncode}: {last_line}"
    return {
        "size": None,
        "images": 0,
        "available": 0,
        "problems": dict.fromkeys(request.formats, reason),
        "models": {},
    }


def _describe(answer: dict[str, Any], config: ExportConfig, num_classes: int) -> dict[str, Any]:
    saved_models = [name for name in (program.SAVED_MODEL, program.ONE_VIEW) if name in answer["models"]]
    models: list[dict[str, Any]] = [
        {"name": name, "file": None, "problem": None, **answer["models"][name]} for name in saved_models
    ]
    for name in config.formats:
        measured = answer["models"].get(name, dict.fromkeys(_MEASURED))
        problem = answer["problems"].get(name) or _find_disagreement(name, measured, answer["images"], config)
        file = None if problem else f"{files.FOLDER}/{conversion.FILES[name]}"
        models.append({"name": name, "file": file, "problem": problem, **measured})
    return {
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": [None, *(answer["size"] or (None, None)), preprocessing.CHANNELS],
            "content": "upright RGB images of this size",
        },
        "output": {"name": "probabilities", "shape": [None, num_classes], "content": "order of labels.txt"},
        "views": 1,
        "images": answer["images"],
        "available": answer["available"],
        "models": models,
        "left_out": [f"{m['name']} is left out: {m['problem']}" for m in models if m["problem"]],
    }


def _find_disagreement(
    name: Format, measured: dict[str, Any], images: int, config: ExportConfig
) -> str | None:
    least = config.min_agreement_of(name)
    if measured["agreement"] >= least:
        return None
    key = "min_agreement_int8" if name == "tflite_int8" else "min_agreement"
    return (
        f"it answers the same class as the SavedModel for {measured['agreement']:.2%} of {images:,} test "
        f"images, less than export.{key}={least:.2%}"
    )
