"""Runs trainings as one of several workers: `python worker.py DATA JOBS`, with TF_CONFIG set.

DATA is a folder with `train/`, `val/`, `schema.pbtxt` and `transform/`, JOBS a JSON list of (settings, name).
Worker i writes to DATA/<name>-<i>.
"""

from __future__ import annotations

import json
import logging
import sys
import types
from typing import Any

from tfx_bsl.public import tfxio

from models import trainer
from models.training import distribution
from models.training.run import TrainingDivergedError


def factory(patterns: list[str], options: Any, schema: Any) -> Any:
    """Stands in for TFX's `data_accessor.tf_dataset_factory`; does the same for gzipped TFRecords."""
    source = tfxio.TFExampleRecord(file_pattern=patterns, schema=schema, telemetry_descriptors=["test"])
    return source.TensorFlowDataset(options)


def main(data: str, jobs: str) -> None:
    logging.basicConfig(level=logging.INFO)
    workers = distribution.join()  # a process can join only once
    distribution.join = lambda: workers  # type: ignore[assignment]
    for settings, name in json.loads(jobs):
        directory = f"{data}/{name}-{workers.index}"
        fn_args = types.SimpleNamespace(
            train_files=[f"{data}/train/*"],
            eval_files=[f"{data}/val/*"],
            schema_path=f"{data}/schema.pbtxt",
            transform_graph_path=f"{data}/transform",
            data_accessor=types.SimpleNamespace(tf_dataset_factory=factory),
            custom_config={"settings": settings},
            hyperparameters=None,
            model_run_dir=f"{directory}/model_run",
            serving_model_dir=f"{directory}/model/Format-Serving",
        )
        try:
            trainer.run_fn(fn_args)
        except TrainingDivergedError as error:
            print(f"TrainingDivergedError: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
